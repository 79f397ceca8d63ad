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
    words = [
        str(home / "rpo"),
        str(home / "dpo"),
        "-o",
        str(out),
        "eval.generate={samples: 2, prompts: 6, max_new_tokens: 8}",
        judges,
    ]
    assert main(words, compare=True) == 0
    return (out / "reports" / "newest").resolve()


def run(script, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recompute.py", str(folder), "--gold-range", "-1", "1"])
    return script.main()


def test_every_figure_is_found_again_or_named(script, kept, monkeypatch, capsys):
    assert run(script, kept, monkeypatch) == 0
    told = capsys.readouterr().out
    assert told.startswith("no figure differs\n")
    report, found = script.recomputed(kept, (-1.0, 1.0))
    figures = script.every_figure(report)
    named = [name for line in told.splitlines()[2:] for name in line.partition(": ")[2].split(", ")]
    assert sorted(named) == sorted(name for name in figures if name not in found)
    assert "not known here" not in told
    assert f"{len(figures) - len(named)} of {len(figures)} figures computed anew; {len(named)} not:" in told
    assert {
        "comparisons/win_rate/j/rpo - dpo",
        "judges/j/preferences",
        "calibration/test/rpo",
        "distinct_1/policy",
    } <= set(named)
    assert {"kl", "dpo/kl", "gold_reward/win_rate", "win_rate/j", "cut_off/difference", "test/calibration/nll",
            "dpo/test/log_ratio/chosen", "length_tokens/ref", "entropy/policy"} <= report["estimates"].keys() & found.keys()  # fmt: skip


def test_the_page_says_of_every_figure_what_it_tells(kept):
    tables = re.findall(r"<table class=measures>.*?</table>", (kept / "report.html").read_text(), re.S)
    small = re.findall(r"<div class=dim>(.*?)</div>", "".join(tables))
    assert len(small) > 25
    assert not [said for said in small if said.startswith("n=")]


def test_a_figure_that_nobody_knows_is_named(script):
    names = ["comparisons/kl/a - b", "b/win_rate_lc/j", "something/new"]
    assert list(script.by_kind(names).items())[-1] == ("not known here", ["something/new"])
    assert len(script.by_kind(names)) == 3


def test_a_figure_that_is_wrong_is_found(script, kept, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(kept, tmp_path / "copy")
    report = json.loads((copy / "report.json").read_text())
    report["estimates"]["kl"]["high"] += 0.01
    (copy / "report.json").write_text(json.dumps(report))
    assert run(script, copy, monkeypatch) == 1
    assert capsys.readouterr().out.startswith("kl high: ")


def test_the_script_has_nothing_of_ours():
    imported = set(re.findall(r"^(?:from|import) (\w+)", SCRIPT.read_text(), re.MULTILINE))
    assert imported == {"argparse", "json", "math", "re", "sys", "pathlib", "numpy", "scipy"}
