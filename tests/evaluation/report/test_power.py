"""`alignkit power`: what a report could have seen, and how many prompts a wanted difference needs."""

import json

import numpy as np
import pytest

from align import cli
from eval.report.results import Report
from eval.report.write import to_json
from eval.statistics.intervals import mean_estimate


@pytest.fixture
def report(tmp_path):
    x = np.tile([-1.0, 1.0], 25)
    found = Report("r", estimates={"gold_reward/difference": mean_estimate(x), "kl": mean_estimate(x)})
    found.estimates["length_tokens/difference"] = mean_estimate(np.ones(50))
    (tmp_path / "report.json").write_text(to_json(found))
    return tmp_path


def test_a_report_says_what_it_could_see_and_what_would_be_needed(report, capsys):
    assert cli.main(["power", str(report), "--difference", "0.1"]) == 0
    shown = capsys.readouterr().out
    gold = next(line for line in shown.splitlines() if "gold" in line).replace(" ", "").split("|")
    assert gold[1:4] == ["gold\\_reward/difference", "50", "0.408"] or gold[2:4] == ["50", "0.408"]
    assert abs(int(gold[4].replace(",", "")) - 803) < 5  # (2.802 · 1.01 / 0.1)²
    assert "nothing" in next(line for line in shown.splitlines() if "length" in line)  # all alike: no interval
    assert "kl" not in shown


def test_a_recipe_says_it_before_there_is_a_report(capsys):
    assert cli.main(["power", "quickstart", "eval.generate.prompts=200"]) == 0
    shown = capsys.readouterr().out
    assert "0.199" in shown
    assert "win rate, half of the verdicts ties" in shown


def test_what_a_recipe_needs_does_not_hang_on_how_many_prompts_it_has(capsys):
    """(1.96 √c + 0.84 √(c - d²))² / d² of Connor, of which a win rate has d twice."""
    for prompts in (4, 10, 200):
        assert cli.main(["power", "quickstart", f"eval.generate.prompts={prompts}", "--difference", "0.1"]) == 0
        needed = [line.split("|")[4].strip() for line in capsys.readouterr().out.splitlines() if "|" in line][2:]
        assert needed == ["194", "96", "787"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json"], "no such report"),
        (["broken.json"], "holds no report"),
        (["empty.json"], "no difference in it"),
        (["quickstart", "eval.generate=null", "eval.gold_reward=null"], "no answers are sampled"),
        (["quickstart", "--difference", "0"], "must be positive and finite"),
    ],
)
def test_what_says_nothing_is_refused(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("[1]")
    (tmp_path / "empty.json").write_text(json.dumps({"estimates": {}}))
    assert cli.main(["power", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "compare", "power", "verify"])
def test_a_missing_package_is_named(monkeypatch, capsys, command):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "scipy" else object())
    assert cli.main([command, "runs/x"]) == 2
    assert "evaluation computes intervals: pip install 'alignkit[eval]'" in capsys.readouterr().err
