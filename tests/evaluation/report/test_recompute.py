"""An independent script finds the figures of a report again from what is kept of each item."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from eval.__main__ import main

SCRIPT = Path(__file__).parents[3] / "scripts" / "recompute.py"
NOT_ANEW = re.compile(r"(.*/)?(distinct_[12]|self_bleu|win_rate_lc|longer_wins|gold_reward/longer_wins|rating)(/.*)?")
OF_PAIRS = re.compile(r".*(calibration/(temperature|ece)|logps_chosen_minus_.*)")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def kept(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    judges = "eval.judges={j: {kind: reward, reward: repetition, temperature: 0.1}}"
    words = [str(home / "rpo"), str(home / "dpo"), "-o", str(out), "eval.generate.samples=2", judges]
    assert main(words, compare=True) == 0
    return (out / "reports" / "newest").resolve()


def run(script, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recompute.py", str(folder), "--gold-range", "-1", "1"])
    return script.main()


def test_every_figure_is_found_again_or_named(script, kept, monkeypatch, capsys):
    assert run(script, kept, monkeypatch) == 0
    told = capsys.readouterr().out
    assert told.startswith("no figure differs\n")
    left = told.split("not: ")[1].strip().split(", ")
    assert [name for name in left if not NOT_ANEW.fullmatch(name) and not OF_PAIRS.fullmatch(name)] == []
    reported, found = script.recomputed(kept, (-1.0, 1.0))
    assert {"kl", "dpo/kl", "gold_reward/win_rate", "win_rate/j", "cut_off/difference", "test/calibration/nll",
            "dpo/test/log_ratio/chosen", "length_tokens/ref", "entropy/policy"} <= reported.keys() & found.keys()  # fmt: skip


def test_a_figure_that_is_wrong_is_found(script, kept, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(kept, tmp_path / "copy")
    report = json.loads((copy / "report.json").read_text())
    report["estimates"]["kl"]["high"] += 0.01
    (copy / "report.json").write_text(json.dumps(report))
    assert run(script, copy, monkeypatch) == 1
    assert capsys.readouterr().out.startswith("kl high: ")


def test_the_script_has_nothing_of_ours():
    imported = set(re.findall(r"^(?:from|import) (\w+)", SCRIPT.read_text(), re.MULTILINE))
    assert imported == {"argparse", "json", "math", "sys", "pathlib", "numpy", "scipy"}
