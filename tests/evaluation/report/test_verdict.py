"""The first words of a report: better, worse or not told apart, and what is missing."""

import json
import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from eval.__main__ import main
from eval.report.assemble import settle
from eval.report.results import Report
from eval.report.tables import estimate_rows
from eval.report.verdict import evidence_rows, headline, verdict
from eval.report.write import to_json
from eval.statistics.comparisons import Comparison, compared
from eval.statistics.intervals import Estimate, mean_estimate, over_seeds
from eval.statistics.names import REF
from eval.statistics.shares import share_difference, share_estimate
from eval.statistics.win_rate import win_rate
from eval.verdicts import Judged

NOISE = np.random.default_rng(0).normal(size=80)


def report(shift, **settings):
    return Report("mine", {"gold_reward/difference": mean_estimate(NOISE - NOISE.mean() + shift)}, settings=settings)


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (1.0, "mine is better than reference by gold reward, +1.000 ["),
        (-1.0, "mine is worse than reference by gold reward, -1.000 ["),
        (0.01, "mine is not told apart from reference by gold reward, +0.010 ["),
    ],
)
def test_the_verdict_comes_first_and_in_plain_words(shift, said):
    assert verdict(report(shift)).startswith(said)
    assert ("would be seen in 8 of 10 cases" in verdict(report(shift))) == (shift == 0.01)


def test_what_is_missing_is_said():
    assert verdict(Report("mine")).startswith("Missing: nothing here says whose answers are better: set eval.generate")
    few = Report("mine", {"gold_reward/difference": mean_estimate(NOISE[:8])})
    assert "8 prompts are few" in verdict(few)
    assert "Missing" not in verdict(report(1.0))


@pytest.mark.parametrize("n", [4, 5])
def test_fewer_than_five_prompts_have_no_interval_and_tell_nothing_apart(n):
    """Nothing has shown what an interval of four would cover. Seeds have theirs: Student's, simulated for two and three."""
    scores = {"mine": NOISE[:n] / 100 + 1, "other": NOISE[-n:] / 100, REF: np.zeros(n)}
    found = Report("mine", {"gold_reward/difference": mean_estimate(scores["mine"])})
    found.estimates["front/hypervolume_over_seeds/mine"] = over_seeds(NOISE[:3])
    found.best_of_k["gold reward"] = {1: mean_estimate(scores["mine"])}
    found.judged["gpm"] = Judged("table", ["mine", REF], ratings={"mine": mean_estimate(scores["mine"])})
    found.judged["gpm"].win_rates["mine"] = win_rate(np.ones(n))
    found.judged["gpm"].longer_wins["mine"] = share_estimate(np.ones(n))
    found.compared["gold_reward"] = compared(scores, np.arange(n))
    settle(found)
    judged = found.judged["gpm"]
    of_prompts = [
        found.estimates["gold_reward/difference"], found.best_of_k["gold reward"][1], judged.ratings["mine"],
        judged.win_rates["mine"].win_rate, *(row.difference for row in found.comparisons["gold_reward"]),
    ]  # fmt: skip
    assert {math.isfinite(e.low) for e in of_prompts} == {math.isfinite(e.high) for e in of_prompts} == {n == 5}
    assert math.isfinite(found.estimates["front/hypervolume_over_seeds/mine"].low)
    assert {row.p_value == 1 and row.detectable == math.inf for row in found.comparisons["gold_reward"]} == {n == 4}
    assert ("is better than" in verdict(found), "no interval" in verdict(found)) == (n == 5, n == 4)


def test_answers_that_are_cut_off_are_told():
    found = report(1.0)
    found.estimates["cut_off/policy"] = share_estimate(np.array([1.0] * 97 + [0.0] * 3))
    found.estimates["length_tokens/difference"] = mean_estimate(NOISE)
    said = verdict(found)
    assert "97% of the answers cut off" in said
    assert "same length" not in said
    found.estimates["length_tokens/difference"] = Estimate(0.0, -np.inf, np.inf, 4)
    assert "answers +0.0 tokens;" in verdict(found)


def test_who_beats_whom_is_corrected_and_comes_early():
    found = Report("a")
    found.compared["gold_reward"] = compared({"a": NOISE + 2, "b": NOISE[::-1], "c": np.roll(NOISE, 7)}, np.arange(80))
    settle(found)
    said = verdict(found)
    assert said.startswith("Beyond doubt, corrected for 3 comparisons: a above b by ")
    assert "b above c" not in said
    found.compared = {"gold_reward": compared({"b": NOISE[::-1], "c": np.roll(NOISE, 7)}, np.arange(80))}
    settle(found)
    assert verdict(found).startswith("No two are told apart, corrected for 1 comparisons.")


def ordered(*pairs):
    """Comparisons of a, b, c and the reference, of which some are beyond doubt."""
    rows = []
    for first, second in combinations(("a", "b", "c", "reference"), 2):
        sign = ((first, second) in pairs) - ((second, first) in pairs)
        rows.append(Comparison(first, second, Estimate(sign or 0.1, sign - 0.5, sign + 0.5, 80), 1 - abs(sign), 0.3))
    return rows


@pytest.mark.parametrize(
    ("pairs", "other", "said"),
    [
        ([], [], "No run is told apart from another, nor from reference: the differences are within noise."),
        ([("a", "b"), ("a", "c"), ("a", "reference")], [("a", "b")], "a is better than b, c and reference."),
        ([("c", "b"), ("c", "reference")], [], "c is better than b and reference; a and c are not told apart."),
        (
            [("a", "b")],
            [("c", "reference")],
            "a is better than b; c is better than reference; a and c are not told apart.",
        ),
        ([("reference", "b")], [], "reference is better than b; a, c and reference are not told apart."),
        ([("a", "b")], [("b", "a")], "Some runs are better by one measure, and worse by another."),
        ([("a", "b"), ("b", "c")], [], "a is better than b; a and reference are not told apart."),
    ],
)
def test_the_headline_of_a_comparison_says_which_runs_are_better_than_which(pairs, other, said):
    found = report(1.0)
    found.comparisons = {"gold_reward": ordered(*pairs), "win_rate/j": ordered(*other), "x/nll": ordered(("b", "a"))}
    assert headline(found) == said
    found.rounds = ["a", "b"]  # of the rounds of one run the last is held against the reference
    assert headline(found).startswith("mine is ")


def test_headline_and_what_is_compared_have_one_interval():
    """A difference that is sure by itself, and not among ten."""
    policies = {"mine": NOISE + 0.4, REF: NOISE[::-1], **{f"other {k}": np.roll(NOISE, 3 + 5 * k) for k in range(8)}}
    found = Report("mine", {"gold_reward/difference": mean_estimate(policies["mine"] - policies[REF])})
    assert headline(found) == "mine is better than reference."
    found.compared["gold_reward"] = compared(policies, np.arange(80))
    settle(found)
    (row,) = [row for row in found.comparisons["gold_reward"] if {row.first, row.second} == {"mine", "reference"}]
    assert row.p_value > 0.05
    assert headline(found).startswith("No run is told apart from another, nor from reference")
    assert verdict(found).startswith("mine is not told apart from reference by gold reward")
    ((_, word, shown, _),) = evidence_rows(found)
    assert (word, "joint interval" in shown) == ("not told apart", True)
    turned = [row._replace(first=row.second, second=row.first, difference=turned_round(row.difference))]
    found.comparisons["gold_reward"] = turned
    assert evidence_rows(found)[0][2] == shown


def test_a_judge_beside_others_is_read_by_the_joint_interval():
    rate = Estimate(0.6, 0.52, 0.68, 80)
    found = Report("mine")
    found.judged["gpm"] = SimpleNamespace(
        win_rates={"mine": SimpleNamespace(win_rate=rate)}, longer_wins={"mine": Estimate(0.5, 0.4, 0.6, 80)}
    )
    assert headline(found) == "mine is better than reference."
    found.comparisons["win_rate/gpm"] = [Comparison("mine", "reference", Estimate(0.2, -0.02, 0.42, 80), 0.07, 0.3)]
    assert headline(found) == "mine is not told apart from reference: the difference is within noise."
    assert "win rate 0.600 [0.490, 0.710] (n=80; joint interval" in evidence_rows(found)[0][2]


def turned_round(e):
    return Estimate(-e.value, -e.high, -e.low, e.n)


def test_a_likelihood_is_better_where_it_is_lower():
    found = Report("a")
    found.compared["test/nll"] = compared({"a": NOISE + 2, "b": NOISE[::-1]}, np.arange(80))
    settle(found)
    assert "a above b by 2.0" in verdict(found)
    assert "in test/nll, where lower is better" in verdict(found)


def test_an_accuracy_is_held_against_one_half_and_against_the_longer_answer():
    found = report(1.0)
    found.pairs["test"] = {}
    right = np.array([1.0] * 60 + [0.0] * 20)
    found.estimates["test/ranking_accuracy/implicit_reward"] = share_estimate(right)
    found.estimates["test/ranking_accuracy/longer_wins"] = share_estimate(right[::-1])
    found.estimates["test/ranking_accuracy/above_longer_wins"] = share_difference(right - right[::-1])
    said = verdict(found)
    assert "above one half" in said
    assert 'not told apart from "the longer one wins" (0.750)' in said


def test_the_same_is_said_only_where_it_was_asked_for():
    assert "the same within" not in verdict(report(0.0))
    assert "gold\\_reward: the same within ±1" in verdict(report(0.0, same_within={"gold_reward": 1.0})).replace(
        "_", "\\_"
    )
    assert "not shown to be the same within ±0.01" in verdict(report(0.0, same_within={"gold_reward": 0.01}))
    assert "no such difference" in verdict(report(0.0, same_within={"size": 0.01}))


@pytest.mark.parametrize("given", ["length_tokens", "length_tokens=0", "length_tokens=x", "=1"])
def test_a_margin_that_is_none_is_refused_before_anything_is_loaded(given, capsys):
    assert main(["nowhere", "--same-within", given]) == 2
    assert "must be MEASURE=DIFFERENCE" in capsys.readouterr().err


def test_a_report_says_which_form_it_has_and_with_what_it_was_made():
    read = json.loads(to_json(report(1.0)))
    assert read["schema_version"] == 1
    assert read["date"].endswith("+00:00")
    assert {"numpy", "scipy", "torch"} <= set(read["versions"])


def test_a_kl_that_few_prompts_carry_is_told():
    found = report(1.0)
    found.estimates["kl"] = mean_estimate(np.arange(1.0, 31.0), bounds=(0.0, np.inf))
    even = np.full(30, 1.5)
    for largest, told in ((1.5, False), (60.0, True)):
        ratios = even.copy()
        ratios[6] = largest
        found.measured = {"mine": {"log_ratio": ratios.tolist(), "ref_log_ratio": (-even).tolist()}}
        assert ("of which one prompt holds more than a fifth" in verdict(found)) == told
        notes = [row[0] for row in estimate_rows(found) if row[0].startswith("kl: prompt 7 alone holds ")]
        assert [note.endswith("holds the truth in 85 to 93% of cases") for note in notes] == [True] * told
    found.estimates["kl"] = Estimate(1.0, -np.inf, np.inf, 4)
    assert [row[0].endswith("the median prompt has 0.953") for row in estimate_rows(found)[1:]] == [False, True]
