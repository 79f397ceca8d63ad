"""`alignkit reward-bench`: best of four, ties and cycles, by hand and from a file."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from align import cli
from align.judges.scorers import RewardScorer, TableScorer
from eval.reward_bench import Row, bench_estimates, margins_of, read_rows
from eval.statistics.reward_bench import OfTies, best_of, cycle_estimates, gaps, ties_estimates

CIRCLE = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])


def of(*rewards):
    values = np.array(rewards, dtype=float)
    return values[:, None] - values[None, :]


@pytest.mark.parametrize(
    ("rewards", "chosen", "value"),
    [
        ((3, 1, 2, 0), 1, 1),
        ((1, 3, 2, 0), 1, 0),
        ((2, 2, 1, 0), 1, 1 / 2),  # one of two equals is drawn
        ((2, 2, 2, 2), 1, 1 / 4),
        ((1, 1, 2, 0), 1, 0),
        ((1, 3, 2, 0), 2, 1),
        ((2, 1, 2, 0), 2, 1 / 2),
    ],
)
def test_best_of_four_by_hand(rewards, chosen, value):
    assert best_of(of(*rewards), chosen) == value


def test_the_best_of_a_circle_is_nobody():
    assert best_of(CIRCLE) == 0


def reference_score(rows):
    """The published code's sums, over scores of (tied answers, how many are right, single answers)."""
    tied_accuracy = np.mean([min(t[:n]) > max(t[n:]) for t, n, _ in rows])
    ref_accuracy = np.mean([r[0] > max(r[1:]) for *_, r in rows])
    apart = np.array([max(t[:n]) - min(t[:n]) for t, n, _ in rows], dtype=float)
    gap = np.array([min(t[:n]) - max(t[n:]) for t, n, _ in rows], dtype=float)
    single = np.array([r[0] - max(r[1:]) for *_, r in rows], dtype=float)
    least = np.minimum(gap, single)
    finer = np.tanh(least / apart - 1).mean()
    parts = tied_accuracy, ref_accuracy, np.mean(gap > apart), np.mean(least > apart)
    return parts, 0.3 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2] + 0.2 * parts[3] + 0.01 * finer


TIED = [
    ([5, 4, 1, 0], 2, [3, 1]),  # gap 3 of distance 1, single 2: all hold
    ([5, 3, 2, 0], 2, [9, 1]),  # gap 1 of distance 2
    ([5, 4.5, 1, 0], 2, [2, 1.8]),  # single gap 0.2 under the distance 0.5
    ([5, 1, 3, 0], 2, [1, 2]),  # nothing holds
]


def test_ties_are_the_benchmarks():
    rows = [OfTies(of(*tied), n, of(*single), 1) for tied, n, single in TIED]
    found = ties_estimates(rows)
    parts, score = reference_score(TIED)
    assert [found[k].value for k in ("tied_accuracy", "ref_accuracy", "preferred", "preferred_hard")] == list(parts)
    assert list(parts) == [0.75, 0.75, 0.5, 0.25]
    assert found["score"].value == pytest.approx(score)
    assert found["score"].n == 4
    assert gaps(of(5, 3, 2, 0), 2) == (1, 2)


def test_right_answers_of_one_reward_do_not_divide_by_zero():
    same = OfTies(of(2, 2, 1), 2, of(2, 1), 1)
    nothing = OfTies(of(2, 2, 2), 2, of(2, 2), 1)
    found = ties_estimates([same, nothing])
    assert found["score"].value == pytest.approx((1 + 0.01 + 0) / 2)


def test_a_scale_says_no_cycle_and_a_table_may():
    found = cycle_estimates([CIRCLE, -CIRCLE, of(3, 2, 1), of(0, 0, 0)])
    assert found["cycle"].value == 1 / 4
    assert found["any_cycle"].value == 2 / 4
    assert found["edges"].value == pytest.approx((1 + 0 + 2 / 3 + 1 / 2) / 4)
    assert found["above_a_scale"].value == pytest.approx((1 + 0 + 2 / 3 + 1 / 2) / 4 - 2 / 3)
    rng = np.random.default_rng(0)
    scales = cycle_estimates([of(*rng.normal(size=4)) for _ in range(50)])
    assert scales["any_cycle"].value == 0
    assert scales["above_a_scale"].high < 0
    assert scales["above_a_scale"].low >= -1


def test_margins_are_rewards_where_there_are_and_else_log_odds():
    row = Row("p", ["a", "bb", "cccc"], 1, "", "", "", {})
    rewards = RewardScorer(lambda prompts, completions, **_: [float(len(one)) for one in completions], temperature=0.0)
    assert margins_of(rewards, [row])[0][2].tolist() == [3, 2, 0]
    table = TableScorer(["a", "bb", "cccc"], [[0.5, 0.8, 0.1], [0.2, 0.5, 0.5], [0.9, 0.5, 0.5]])
    got = margins_of(table, [row, row._replace(answers=["a", "bb"])])
    assert got[0][0] == pytest.approx([0, math.log(4), -math.log(9)])
    assert got[1].shape == (2, 2)
    failing = RewardScorer(lambda prompts, completions, **_: [None] * len(completions))
    assert margins_of(failing, [row]) == [None]


@pytest.fixture
def file(tmp_path):
    def written(rows):
        (tmp_path / "bench.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        return str(tmp_path / "bench.jsonl")

    return written


def text(clean):
    """The more it repeats, the less `repetition` gives."""
    return " ".join(f"w{i}" for i in range(clean)) + " no" * (9 - clean)


ROWS = [
    *({"prompt": f"p{i}", "chosen": [text(9)], "rejected": [text(n) for n in (1, 2, 4)], "subset": "Math"} for i in range(4)),
    *({"prompt": f"q{i}", "chosen": text(2), "rejected": [text(5)], "subset": "Focus"} for i in range(3)),
    *(
        {"prompt": f"t{kind}{i}", "chosen": [text(9)] * (1 + (kind == "tied")), "rejected": [text(3)], "id": f"{kind}:{i}",
         "subset": "Ties"}
        for i in range(2) for kind in ("ref", "tied")
    ),
]  # fmt: skip


def test_the_command_says_it_by_subset_and_writes_it(file, tmp_path, capsys):
    words = ["--by", "r={kind: reward, reward: repetition}", "-o", str(tmp_path / "out.json")]
    assert cli.main(["reward-bench", file(ROWS), *words]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())["r"]
    assert list(found) == ["all", "subset Focus", "subset Math", "ties"]
    assert {name: part["accuracy"]["value"] for name, part in found.items() if name != "ties"} == {
        "all": pytest.approx(4 / 7), "subset Focus": 0, "subset Math": 1
    }  # fmt: skip
    assert found["all"]["above_chance"]["value"] == pytest.approx((4 * 3 / 4 - 3 / 2) / 7)
    assert found["ties"]["score"]["value"] == pytest.approx(1.01)
    assert "n counts prompts" in shown


def test_cycles_are_read_from_a_file(file):
    rows = read_rows(Path(file([{"prompt": f"p{i}", "cycle": ["a", "b", "c"]} for i in range(3)])))
    table = TableScorer(["a", "b", "c"], [[0.5, 0.9, 0.2], [0.1, 0.5, 0.9], [0.8, 0.1, 0.5]])
    assert bench_estimates(rows, margins_of(table, rows))["cycles"]["cycle"].value == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "row 1: no 'prompt'"),
        ({"chosen": []}, "row 1: chosen: must be a text or a list of texts"),
        ({"rejected": [3]}, "row 1: rejected: must be a text or a list of texts"),
        ({"cycle": ["a", "b"]}, "row 1: cycle: needs 3 answers or more, got 2"),
        ({"id": "tied:7"}, "row 1: tied:7 is a question of ties, and has one chosen answer"),
        ({"id": "ref:7"}, "question of ties 7 has only one of ref and tied"),
    ],
)
def test_rows_that_cannot_be_measured_are_named(file, capsys, change, message):
    rows = [ROWS[0] | change]
    assert cli.main(["reward-bench", file(rows), "--by", "r={kind: reward, reward: repetition}"]) == 2
    assert message in capsys.readouterr().err
