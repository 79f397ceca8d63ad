"""Means, shares and their differences: formulas against independent ones, and ends that leave a doubt."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from align.intervals import t_quantile, wilson
from eval.statistics.intervals import Estimate, cluster_sums, left_out, mean_estimate, over_seeds, win_scores
from eval.statistics.shares import design_effect, share_difference, share_estimate, tango


def values(*items):
    return np.array(items, dtype=float)


def test_an_estimate_prints_value_interval_and_count():
    assert str(Estimate(0.12345, -0.5, 1.0, 7)) == "0.123 [-0.500, 1.000] (n=7)"


def test_win_scores_by_hand():
    assert win_scores(values(1, 2, 3), values(2, 2, 2)).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("won", "n", "ends"),
    [
        (20, 20, (0.838875, 1.0)),
        (40, 40, (0.912378, 1.0)),
        (34, 50, (0.541897, 0.792417)),
        (19, 20, (0.763869, 0.997435)),  # 1 - χ²₂(.05) / 40
        (0, 7, (0.0, 0.354330)),
        (3, 60, (0.013628, 0.137005)),  # χ²₆(.05) / 120
    ],
)
def test_wilson_by_hand(won, n, ends):
    assert_allclose(wilson(won, n), ends, atol=1e-6)
    assert_allclose(wilson(n - won, n), [1 - ends[1], 1 - ends[0]], atol=1e-6)


@pytest.mark.parametrize(
    ("won", "lost", "n", "ends"),
    [
        (12, 5, 60, (-0.019466, 0.254022)),
        (3, 9, 20, (-0.572655, 0.041565)),
        (0, 0, 20, (-0.161125, 0.161125)),
        (4, 0, 200, (0.000778, 0.050287)),
        (20, 0, 20, (0.677750, 1.0)),
        (0, 20, 20, (-1.0, -0.677750)),
    ],
)
def test_tango_is_what_a_restricted_likelihood_gives(won, lost, n, ends):
    assert_allclose(tango(float(won), float(lost), float(n), 1.959964), ends, atol=1e-6)


def test_without_ties_a_difference_of_shares_is_a_share():
    won = values(*[1] * 34, *[0] * 16)
    share, difference = share_estimate(won), share_difference(2 * won - 1)
    assert_allclose([2 * share.low - 1, 2 * share.high - 1], [difference.low, difference.high], atol=1e-7)


def test_ties_make_a_share_more_certain():
    halves = values(*[0.5] * 40, *[1] * 10)
    assert share_estimate(halves).value == pytest.approx(0.6)
    assert share_estimate(halves).low > 0.5 > wilson(30, 50)[0]
    assert share_estimate(np.full(60, 0.5)).low < 0.5 < share_estimate(np.full(60, 0.5)).high


def test_a_mean_without_skewness_has_the_interval_of_students_t():
    x = values(-3, -1, 0, 1, 3)
    half = stats.t.ppf(0.975, 4) * x.std(ddof=1) / math.sqrt(5)
    assert_allclose(mean_estimate(x), (0, -half, half, 5), atol=1e-12)
    assert mean_estimate(x, level=0.5).high < half


def test_an_interval_ends_where_values_do():
    values = np.array([0.0, 1.0, 1.0, 1.0, 1.0])
    assert mean_estimate(values).high > 1.0
    assert mean_estimate(values, bounds=(0.0, 1.0)).high == 1.0
    assert mean_estimate(1 - values, bounds=(0.0, 1.0)).low == 0.0


@pytest.mark.parametrize("n", [2, 3, 4, 5, 20, 21, 1000])
def test_quantiles_of_students_t_are_those_of_scipy(n):
    for level in (0.5, 0.95, 0.999):
        assert t_quantile(level, n) == pytest.approx(stats.t.ppf((1 + level) / 2, n - 1), rel=1e-11)


def test_a_skewed_mean_reaches_farther_on_the_long_side():
    x = np.random.default_rng(1).exponential(size=30)
    got, half = mean_estimate(x), stats.t.ppf(0.975, 29) * x.std(ddof=1) / math.sqrt(30)
    assert got.high - got.value > 1.1 * half
    assert got.value - got.low == pytest.approx(half)
    w, skew = (got.high - got.value) / x.std(ddof=1), stats.skew(x)
    assert -w + skew * w**2 / 3 - skew**2 * w**3 / 27 + skew / 180 == pytest.approx(
        -half / x.std(ddof=1)
    )  # Hall's cubic


def test_values_that_are_all_alike_are_not_certain():
    assert mean_estimate(np.full(9, 0.1))[1:] == (-math.inf, math.inf, 9)
    unseen = 1 - 0.025 ** (1 / 9)
    assert_allclose(mean_estimate(np.full(9, 0.1), bounds=(0.0, 1.0)), (0.1, 0.1 - 0.1 * unseen, 0.1 + 0.9 * unseen, 9))
    for same in (share_estimate(np.ones(20)), share_difference(np.zeros(20)), share_difference(np.ones(20))):
        assert same.high - same.low > 0.1
    alike = left_out(["a b"] * 40, lambda texts: 0.25)
    assert alike.low < 0.25 < alike.high
    rounded = left_out(["great"] * 12, lambda texts: 1 / len(texts))  # each of the twelve groups gives 1 / 11
    assert rounded.low < 0.07 < 0.3 < rounded.high


def test_items_of_one_prompt_count_once():
    x, labels = np.random.default_rng(3).normal(size=30), np.arange(30)
    assert_allclose(mean_estimate(np.tile(x, 5), np.tile(labels, 5)), mean_estimate(x))
    won = (x > 0) * 1.0
    once, five = share_estimate(won), share_estimate(np.tile(won, 5), np.tile(labels, 5))
    assert five.n == 30
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=0.15)
    naive = share_estimate(np.tile(won, 5))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)
    ties = share_difference(np.tile(won, 5) - 0.5, np.tile(labels, 5))
    assert ties.high - ties.low > 1.8 * (naive.high - naive.low)


def test_cluster_sums_by_hand():
    sums, sizes = cluster_sums(values(1, 2, 4), np.array(["b", "a", "b"]))
    assert (sums.tolist(), sizes.tolist()) == ([2, 5], [1, 2])


def test_a_design_effect_is_believed_until_it_is_seen():
    """Clusters of 4. One that disagrees of twenty tells little; hundreds tell all."""
    assert design_effect(np.zeros(20), 4.0, 0.0) == 4.0
    assert design_effect(np.zeros(20), 4.0, 5.0) == pytest.approx(2.5 / 21)
    one = np.zeros(20)
    one[0] = 2.0
    observed = 4 * 20 / 19 / 3.8
    assert design_effect(one, 4.0, 3.8) == pytest.approx((1 * observed + 2.5) / 2)
    many = np.random.default_rng(0).normal(size=4000)
    assert design_effect(many, 4.0, 4000.0) == pytest.approx(1.0, abs=0.06)


def test_seeds_have_students_t():
    assert_allclose(over_seeds(values(1, 2, 3)), (2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5, 3), atol=1e-6)
    assert over_seeds(values(2, 2))[1:3] == (-math.inf, math.inf)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_has_no_interval_is_refused(bad):
    with pytest.raises(ValueError, match="finite, got 1 that are not"):
        mean_estimate(values(0, bad, 1))
    with pytest.raises(ValueError, match="at least 2 items, got 1"):
        mean_estimate(values(1, 2), np.array([7, 7]))
    with pytest.raises(ValueError, match="level must be"):
        mean_estimate(values(0, 1), level=95.0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        share_estimate(values(0, bad))
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        share_difference(values(0, 2))
    with pytest.raises(ValueError, match="level must be"):
        share_estimate(values(0, 1), level=0.0)
