"""Shares by group, the worst-off group, and agreement within and between groups: by hand, by enumeration, in commands and reports."""

import json

import numpy as np
import pytest
import yaml
from scipy import stats
from stored_world import make_world

from align import cli
from align.judges.scorers import RewardScorer
from eval.__main__ import main
from eval.answers.table import Sampled
from eval.report.assemble import judge_report
from eval.report.results import Report
from eval.statistics.groups import agreement_of_groups, group_shares
from eval.statistics.names import REF
from eval.statistics.shares import share_estimate

NOUNS = ["sky", "sea", "rose", "wall", "hat", "boat", "fish", "door", "tree", "cup", "key", "wind"]


def test_the_worst_group_by_hand():
    values = np.array([1, 1, 1, 0, 1, 0, 0, 0.5, np.nan])
    groups = np.array(["a"] * 4 + ["b"] * 5)
    found = group_shares(values, groups)
    assert list(found) == ["group/a", "group/b", "worst_group"]
    assert (found["group/a"].value, found["group/b"].value, found["worst_group"].value) == (0.75, 0.375, 0.375)
    assert found["group/a"] == share_estimate(values[:4])
    joint = [share_estimate(values[part], level=0.975) for part in (slice(0, 4), slice(4, 8))]
    assert found["worst_group"].low == min(one.low for one in joint)
    assert found["worst_group"].high == min(one.high for one in joint)
    assert found["worst_group"].n == 4
    assert group_shares(values[:6], groups[:6])["worst_group"].n == 2
    with pytest.raises(ValueError, match="group 'b' has verdicts on 1 prompts"):
        group_shares(values[:5], groups[:5])


def test_the_interval_of_the_worst_group_allows_for_the_choice():
    """Four groups of one true share: the least of them is below it, and its own interval misses too often."""
    rng, own, joint = np.random.default_rng(0), 0, 0
    groups = np.repeat(np.array(list("abcd")), 40)
    for _ in range(400):
        found = group_shares((rng.random(160) < 0.6) * 1.0, groups)
        least = min((found[f"group/{name}"] for name in "abcd"), key=lambda one: one.value)
        own += least.low <= 0.6 <= least.high
        joint += found["worst_group"].low <= 0.6 <= found["worst_group"].high
    assert stats.binomtest(joint, 400, 0.95).pvalue > 0.01 or joint / 400 > 0.95
    assert own / 400 < 0.92


def test_people_of_one_group_agree_more_than_those_of_two():
    items = [
        [("p", "x", 1), ("q", "x", 1), ("r", "y", 0)],
        [("p", "x", 0), ("q", "x", 1), ("r", "y", 1), ("s", "y", 1)],
        [("p", "x", 1)], [("p", "x", 1), ("p", "x", 0)],
    ]  # fmt: skip
    found = agreement_of_groups(items)
    assert found["within"].value == pytest.approx((1 + (0 + 1) / 2) / 2)
    assert found["between"].value == pytest.approx((0 + 2 / 4) / 2)
    assert found["within"].n == found["between"].n == 2
    assert not agreement_of_groups(items[2:])
    assert agreement_of_groups(items, np.array(["a", "a", "b", "b"])) == {}
    assert agreement_of_groups([*items, items[0]], np.array([0, 0, 1, 1, 2]))["within"].n == 2


def rows():
    """Two groups of two people who see the same six pairs; the first prefers what repeats nothing, the second the other."""
    good, bad = "one two three four", "no no no no no no"
    for number in range(6):
        for person, group in (("p", "x"), ("q", "x"), ("r", "y"), ("s", "y")):
            first = (group == "x") != (person == "q" and number == 0)
            chosen, rejected = (good, bad) if first else (bad, good)
            yield {"prompt": f"q{number}", "chosen": chosen, "rejected": rejected, "who": person, "group": group}


def test_the_command_tells_groups_the_worst_of_them_and_their_agreement(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    words = ["judge-agreement", str(tmp_path / "rows.jsonl"), "--by", "r={kind: reward, reward: repetition}"]
    words += ["--category", "group", "--annotator", "who", "-o", str(tmp_path / "out.json")]
    assert cli.main(words) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["r"]["group x"]["accuracy"]["value"] == pytest.approx(11 / 12)
    assert found["r"]["worst group"]["accuracy"]["value"] == found["r"]["group y"]["accuracy"]["value"] == 0
    assert found["people"]["group"]["within"]["value"] == pytest.approx((5 + 1 / 2) / 6)
    assert found["people"]["group"]["between"]["value"] == pytest.approx((1 / 2) / 6)
    assert "worst group" in capsys.readouterr().out
    assert cli.main([*words[:4], "--annotator", "who"]) == 2
    assert "--annotator: people of which groups?" in capsys.readouterr().err
    assert cli.main([*words[:4], "--category", "group", "--annotator", "nobody"]) == 2
    assert "no 'nobody'" in capsys.readouterr().err


def test_win_rates_are_of_the_groups_of_the_prompts():
    """Two samples a prompt; prompts of x are won, those of y lost but for one game."""
    rows = [{"prompt": f"p{i}", "group": "xy"[i % 2]} for i in range(6)]
    mine = [["long one", "long one"] if i % 2 == 0 else ["a", "long one" if i == 1 else "a"] for i in range(6)]
    report = Report("mine")
    data = Sampled(rows, {"mine": mine, REF: [["middle"] * 2] * 6})
    judge = RewardScorer(lambda completions, **_: [float(len(one)) for one in completions], temperature=0.0)
    judge_report(report, "j", "reward", judge, data, gold={}, group="group")
    found = report.estimates
    assert (found["win_rate/j/group/x"].value, found["win_rate/j/group/y"].value) == (1, pytest.approx(1 / 6))
    assert found["win_rate/j/worst_group"].value == pytest.approx(1 / 6)
    assert found["win_rate/j/group/y"].n == 3
    judge_report(report, "other", "reward", judge, data, gold={}, group="nobody")
    assert "not every prompt has a column 'nobody'" in report.judged["other"].notes[-1]


def evaluated(world, folder, method, rows):
    """The estimates of a report on rows of two groups."""
    recipe = yaml.safe_load((world / "recipe.yaml").read_text())
    (folder / f"{method}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = [
        {key: value for key, value in row.items() if key != "group"} for row in rows
    ]  # who is asked in training has none
    (folder / f"{method}-train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    data = {name: {"path": str(folder / f"{method}{name}.jsonl")} for name in ("", "-train")}
    recipe |= {"method": method, "data": {"train": data["-train"], "eval": {"test": data[""]}}}
    if method == "dpo":
        del recipe["rewards"]
    recipe["eval"] |= {"group": "group", "judges": {"r": {"kind": "reward", "reward": "repetition"}}}
    (folder / f"{method}.yaml").write_text(yaml.safe_dump(recipe))
    words = [str(world / "policy"), "--recipe", str(folder / f"{method}.yaml"), "-o", str(folder / method)]
    assert main(words) == 0
    return json.loads((folder / method / "report.json").read_text())["estimates"]


def test_a_report_has_accuracies_and_win_rates_by_group(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    world = make_world(tmp_path)
    pairs = [
        {"prompt": f"q {i}", "chosen": NOUNS[i], "rejected": NOUNS[i - 5], "group": "xy"[i % 3 == 0], "answer": "1"}
        for i in range(12)
    ]
    for method, keys in (("dynamic_grpo", ["win_rate/r"]), ("dpo", ["win_rate/r", "test/ranking_accuracy"])):
        found = evaluated(world, tmp_path, method, pairs)
        page = (tmp_path / method / "report.html").read_text()
        assert "win rate, judge r, the worst group" in page
        assert "win rate, judge r, group x" in page
        assert "<div class=dim>n=" not in page  # each figure says what it tells
        for key in keys:
            each = {group: found[f"{key}/group/{group}"] for group in "xy"}
            assert found[f"{key}/worst_group"]["value"] == min(one["value"] for one in each.values())
            assert (each["x"]["n"], each["y"]["n"]) == ((4, 2) if "win" in key else (8, 4))
            whole = found["win_rate/r" if "win" in key else f"{key}/implicit_reward"]["value"]
            if "ranking" in key:
                assert whole != found["test/ranking_accuracy/logp"]["value"]
            assert whole == pytest.approx((2 * each["x"]["value"] + each["y"]["value"]) / 3)
