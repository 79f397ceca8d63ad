"""One number has one interval, wherever a report shows it; what all answers agree on is not certain."""

import math

import numpy as np
import pytest
from judged import numbers, wilson_estimate
from numpy.testing import assert_allclose

from align.judges.scorers import RewardScorer
from eval.answers.table import Sampled
from eval.measures.texts import length_estimates
from eval.pairs.ranking import PairScores, alignment_estimates, ranking_estimates
from eval.report.assemble import judge_report, measure_texts
from eval.report.results import Report
from eval.statistics.names import REF
from eval.statistics.shares import share_difference, share_estimate
from eval.statistics.sides import sided_estimates
from eval.statistics.win_rate import position_bias, win_rate

ALL_OF_40 = (1.0, 0.912378, 1.0, 40)  # 40 / (40 + z²)


def gold(completions, **_):
    return [float(text) for text in completions]


def reported(sampled):
    """Gold reward, and a judge that is the same reward."""
    report = Report(sampled.policies[0])
    rewards = measure_texts(report, sampled, length_estimates(sampled), gold)
    judge_report(report, "same", "reward", RewardScorer(gold, temperature=0.0), sampled, gold=rewards)
    return report.estimates


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("ties", [True, False])
def test_gold_reward_and_a_judge_of_the_same_reward_have_one_interval(samples, ties):
    found = reported(numbers(n=40, samples=samples, ties=ties))
    for prefix in ("", "other/"):
        assert found[f"{prefix}gold_reward/win_rate"] == found[f"{prefix}win_rate/same"]
        assert found[f"{prefix}gold_reward/longer_wins"] == found[f"{prefix}longer_wins/same"]
        assert found[f"{prefix}gold_reward/win_rate"].n == 40


@pytest.mark.parametrize("samples", [1, 3])
def test_every_share_of_forty_of_forty_leaves_the_doubt_of_forty(samples):
    rows = [{"prompt": f"p{i}"} for i in range(40)]
    found = reported(Sampled(rows, {"mine": [["11"] * samples] * 40, REF: [["1"] * samples] * 40}))
    for name in ("gold_reward/win_rate", "win_rate/same", "longer_wins/same", "gold_reward/longer_wins"):
        few = 0.0 if samples == 1 else 0.01  # dependence within a prompt is estimated from 40
        assert_allclose(found[name], ALL_OF_40, atol=1e-6 + few, err_msg=name)
    assert found["gold_reward/policy"][:3] == (11, -math.inf, math.inf)  # no share: nothing bounds it


def test_the_interval_goes_by_what_a_number_can_be_and_not_by_what_it_is():
    ones = {"mine": np.ones(40), REF: np.zeros(40)}
    shares = sided_estimates("x", ones, shares=True)
    assert_allclose(shares["x/policy"], ALL_OF_40, atol=1e-6)
    assert shares["x/ref"] == wilson_estimate(0, 40)
    assert shares["x/difference"].low < 1.0 == shares["x/difference"].high
    assert sided_estimates("x", ones)["x/policy"] == (1, -math.inf, math.inf, 40)
    bounded = sided_estimates("x", ones, bounds=(0.0, 1.0))
    assert bounded["x/policy"].low == pytest.approx(0.025 ** (1 / 40))
    assert bounded["x/difference"].low == pytest.approx(2 * 0.025 ** (1 / 40) - 1)
    lengths = length_estimates(Sampled([{"prompt": str(i)} for i in range(40)], {"a": [["x"]] * 40, REF: [["y"]] * 40}))
    assert lengths["a"]["length_characters/policy"] == lengths["a"]["length_words/ref"]
    assert lengths["a"]["length_words/ref"].high == math.inf


def test_verdicts_have_one_rule():
    source, labels = np.random.default_rng(1), np.repeat(np.arange(20), 3)
    won = (source.random(60) < 0.7) * 1.0
    halves = np.round(2 * source.random(60)) / 2
    assert share_estimate(won) == wilson_estimate(won.sum(), 60)
    assert share_estimate(won, np.arange(60), level=0.5) == wilson_estimate(won.sum(), 60, level=0.5)
    difference = share_difference(2 * halves - 1, labels)
    assert share_estimate(halves, labels)[1:3] == ((1 + difference.low) / 2, (1 + difference.high) / 2)
    assert win_rate(won).win_rate == wilson_estimate(won.sum(), 60)
    assert win_rate(won, clusters=labels).discrete_win_rate == share_estimate(won, labels)


def test_a_judge_who_never_flips_may_flip_next_time():
    orders = np.full((40, 2, 2), np.nan)
    orders[:, 0, 1], orders[:, 1, 0] = 1.0, 0.0
    bias = position_bias(orders)
    assert bias.flips == wilson_estimate(0, 40)
    assert bias.first_preference == share_estimate(np.full(40, 0.5))
    with pytest.raises(ValueError, match="at least 2 items, got 1"):
        position_bias(orders[:1])


def test_rankings_are_shares_and_pairs_of_one_prompt_belong_together():
    n, source = 40, np.random.default_rng(2)
    scores = PairScores(*(source.normal(size=n) for _ in range(4)), np.full(n, 9.0), np.full(n, 7.0))
    once = ranking_estimates(scores)
    assert_allclose(once["ranking_accuracy/longer_wins"], ALL_OF_40, atol=1e-6)
    right = float((scores.chosen > scores.rejected).sum())
    assert once["ranking_accuracy/logp"] == wilson_estimate(right, n)
    assert once["logps/chosen"].low < once["logps/chosen"].value < once["logps/chosen"].high
    labels = np.tile(np.arange(n), 5)
    repeated = PairScores(*(np.tile(row, 5) for row in scores))
    ideal = alignment_estimates(repeated, np.full(5 * n, 0.7), beta=0.1, prompts=labels)
    again = ranking_estimates(repeated, prompts=labels) | ideal
    plain = once | alignment_estimates(scores, np.full(n, 0.7), beta=0.1)
    for name, estimate in plain.items():
        assert again[name].n == n, name
        width = estimate.high - estimate.low
        assert again[name].high - again[name].low == pytest.approx(width, rel=0.25), name
    assert ranking_estimates(repeated)["log_ratio/chosen"].n == 5 * n
