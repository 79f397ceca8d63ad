"""An estimate, and the mean with its interval."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eval.statistics.intervals import Estimate, mean_estimate, win_scores


def rng(seed=0):
    return np.random.default_rng(seed)


def values(*items):
    return np.array(items, dtype=float)


def test_an_estimate_prints_value_interval_and_count():
    assert str(Estimate(0.12345, -0.5, 1.0, 7)) == "0.123 [-0.500, 1.000] (n=7)"


def test_mean_and_interval_by_hand():
    """Resamples of (0, 1): means 0, 1/2, 1 with probability 1/4, 1/2, 1/4, so a 95% interval is [0, 1]."""
    assert mean_estimate(values(0, 1), rng=rng()) == (0.5, 0.0, 1.0, 2)


def test_equal_values_leave_no_doubt():
    assert mean_estimate(values(3, 3, 3), rng=rng()) == (3.0, 3.0, 3.0, 3)


def test_the_interval_is_as_wide_as_the_standard_error_says():
    x = rng(1).normal(size=2000)
    got = mean_estimate(x, rng=rng())
    assert got.high - got.low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(len(x)), rel=0.05)


def test_a_higher_level_is_wider():
    x = rng(1).normal(size=50)
    narrow, wide = (mean_estimate(x, rng=rng(), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_same_seed_same_interval_other_seed_another():
    x = rng(1).normal(size=30)
    first = mean_estimate(x, rng=rng(5))
    assert mean_estimate(x, rng=rng(5)) == first
    assert mean_estimate(x, rng=rng(6)).low != first.low


def test_the_interval_ignores_the_global_generator():
    x = rng(1).normal(size=30)
    first = mean_estimate(x, rng=rng(5))
    np.random.random()  # noqa: NPY002 - the global generator is the point
    assert mean_estimate(x, rng=rng(5)) == first


def test_many_items_are_drawn_in_pieces_without_changing_the_count(monkeypatch):
    """At 100 draws at once, 40 items make pieces of 2 rows; of one resample low and high are the same."""
    monkeypatch.setattr("eval.statistics.intervals.DRAWS_AT_ONCE", 100)
    got = mean_estimate(np.arange(40.0), rng=rng(), resamples=7)
    assert got.low < got.value == 19.5 < got.high
    one = mean_estimate(np.arange(40.0), rng=rng(), resamples=1)
    assert one.low == one.high


def test_a_95_percent_interval_covers_95_percent():
    source, hits = rng(2), 0
    for _ in range(400):
        got = mean_estimate(source.normal(1.0, 2.0, size=60), rng=source, resamples=600)
        hits += got.low <= 1.0 <= got.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize("items", [(), (1.0,)])
def test_an_interval_needs_two_items(items):
    with pytest.raises(ValueError, match=f"at least 2 items, got {len(items)}"):
        mean_estimate(values(*items), rng=rng())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite, got 1 that are not"):
        mean_estimate(values(0, bad, 1), rng=rng())


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, -0.1, float("nan")])
def test_level_is_a_share(level):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        mean_estimate(values(0, 1), rng=rng(), level=level)


def test_win_scores_by_hand():
    assert_array_equal(win_scores(values(1, 0, 2, -1), values(0, 1, 2, -1)), [1, 0, 0.5, 0.5])


def test_win_rates_of_both_sides_sum_to_one():
    a, b = rng(3).integers(0, 3, size=(2, 50)).astype(float)
    assert_array_equal(win_scores(a, b) + win_scores(b, a), np.ones(50))
