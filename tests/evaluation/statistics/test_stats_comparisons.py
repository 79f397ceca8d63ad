"""Several comparisons at once: one law for intervals and p-values, and what a report could have seen."""

import math

import numpy as np
import pytest

from eval.statistics.comparisons import compared, corrected
from eval.statistics.intervals import Estimate, mean_estimate
from eval.statistics.power import (
    detectable,
    detectable_share,
    equivalent,
    prompts_needed,
    standard_shift,
)

LABELS = np.arange(40)


def rng(seed=0):
    return np.random.default_rng(seed)


def runs(shift=0.0, k=3, n=40, seed=1):
    source = rng(seed)
    return {name: source.normal(size=n) + shift * i for i, name in enumerate("abcdefgh"[:k])}


def test_two_runs_on_one_measure_have_nearly_their_own_interval():
    one = corrected({"m": compared(runs(k=2), LABELS)}, rng=rng())["m"][0]
    x = runs(k=2)
    alone = mean_estimate(x["a"] - x["b"])
    assert one.difference.value == alone.value
    assert one.difference.high - one.difference.low == pytest.approx(alone.high - alone.low, rel=0.06)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shares", [True, False])
def test_p_values_and_intervals_never_disagree(seed, shares):
    sides = runs(0.35, k=4, seed=seed)
    sides = {name: (x > 0) * 1.0 for name, x in sides.items()} if shares else sides
    for row in corrected({"m": compared(sides, LABELS, shares=shares)}, rng=rng())["m"]:
        assert (row.p_value <= 0.05) == (not row.difference.low <= 0 <= row.difference.high)


def test_the_family_is_all_that_a_report_compares():
    few = corrected({"m": compared(runs(k=2), LABELS)}, rng=rng())["m"][0]
    other = compared(runs(k=6, seed=5), LABELS)
    many = corrected({"m": compared(runs(k=2), LABELS), "other": other}, rng=rng())
    assert many["m"][0].difference.high > few.difference.high
    assert many["m"][0].p_value > few.p_value
    twice = {name: compared(runs(k=2), LABELS) for name in ("m", "again")}  # the same measure twice adds nothing
    again = corrected(twice, rng=rng())
    assert again["m"][0].difference == pytest.approx(few.difference)
    assert again["again"] == again["m"]


def test_clear_differences_are_found_and_equal_sides_are_not():
    sides = runs(3.0) | {"same": runs(3.0)["a"]}
    rows = {(row.first, row.second): row for row in corrected({"m": compared(sides, LABELS)}, rng=rng())["m"]}
    assert rows["a", "b"].p_value < 0.001
    assert rows["a", "b"].difference.high < 0
    assert rows["a", "same"].p_value == 1.0
    assert rows["a", "same"].difference[1:3] == (-math.inf, math.inf)


def test_items_of_one_prompt_are_one():
    x = runs(0.5, k=2)
    once = corrected({"m": compared(x, LABELS)}, rng=rng())["m"][0]
    five = {name: np.tile(column, 5) for name, column in x.items()}
    again = corrected({"m": compared(five, np.tile(LABELS, 5))}, rng=rng())["m"][0]
    assert again.p_value == once.p_value
    assert again.difference == pytest.approx(once.difference)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_few_prompts_are_compared_and_little_is_said(n):
    for seed in range(4):
        sides = {name: (x > 0) * 1.0 for name, x in runs(n=n, seed=seed).items()}
        for row in corrected({"m": compared(sides, np.arange(n), shares=True)}, rng=rng())["m"]:
            assert row.difference.low <= 0 <= row.difference.high
            assert row.p_value > 0.05


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two sides or more"):
        compared({"a": np.ones(3)}, np.arange(3))
    with pytest.raises(ValueError, match="two sides or more"):
        compared({"a": np.ones(3), "b": np.ones(2)}, np.arange(3))
    with pytest.raises(ValueError, match="at least 2 items, got 1"):
        compared({"a": np.ones(2), "b": np.zeros(2)}, np.zeros(2))


@pytest.mark.parametrize(("n", "units"), [(3, 3.26), (10, 1.00), (20, 0.660), (50, 0.404), (200, 0.199), (1000, 0.089)])
def test_the_detectable_difference_in_standard_deviations(n, units):
    assert standard_shift(n) / math.sqrt(n) == pytest.approx(units, abs=0.006)
    deviation = 2.0
    half = deviation / math.sqrt(n) * standard_shift(n, power=0.5)
    assert half > 0
    x = np.tile([-1.0, 1.0], n // 2)
    got = detectable(mean_estimate(x)) / x.std(ddof=1) if len(x) == n else units
    assert got == pytest.approx(units, abs=0.006)


@pytest.mark.parametrize(("wanted", "n"), [(0.5, 34), (0.3, 90), (0.2, 199), (0.1, 787), (0.05, 3142)])
def test_how_many_prompts_a_difference_needs(wanted, n):
    now = standard_shift(50) / math.sqrt(50)
    assert prompts_needed(now, 50, wanted) == pytest.approx(n, abs=2)
    with pytest.raises(ValueError, match="positive and finite"):
        prompts_needed(now, 50, 0.0)
    with pytest.raises(ValueError, match="more than"):
        prompts_needed(now, 50, 1e-6)


def test_paired_shares_can_differ_by_no_more_than_is_discordant():
    assert detectable_share(0.3, 50) == pytest.approx(0.212, abs=0.001)
    assert detectable_share(0.3, 1000) == pytest.approx(0.049, abs=0.001)
    assert detectable_share(0.02, 50) == math.inf
    assert detectable(Estimate(1.0, -math.inf, math.inf, 9)) == math.inf


def test_equivalence_needs_the_ninety_percent_interval_inside():
    x = rng(2).normal(size=50)
    ninety = mean_estimate(x - x.mean() + 0.1, level=0.9)
    got = mean_estimate(x - x.mean() + 0.1)
    edge = max(ninety.high, -ninety.low)
    assert equivalent(got, edge * 1.02)
    assert not equivalent(got, edge * 0.98)
    assert not equivalent(got, got.high) or got.high > edge * 0.98
