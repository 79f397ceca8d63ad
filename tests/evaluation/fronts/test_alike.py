"""What follows from a reward's stated range alone, and points that agree but for rounding."""

import math

import numpy as np
import pytest

from eval.fronts.front import front_of
from eval.statistics.intervals import UNBOUNDED, mean_estimate

SCALES = {"right": (0.0, 1.0), "warm": (-1.0, 3.0)}


def rng():
    return np.random.default_rng(0)


TWICE = dict(zip(("a", "b", "ref"), rng().random((3, 12, 2)) * [1.0, 4.0] + [0.0, -1.0], strict=True))


def front(scores, scales, ranges=None):
    return front_of(scores, scales, ranges=ranges or scales, recipes={})


def test_what_was_seen_of_a_reward_bounds_no_interval():
    """The scale of a reward without a range is made of what was seen; a reward that is the same for all has no interval."""
    scores = {who: np.column_stack([rows[:, 0], np.full(len(rows), 3.0)]) for who, rows in TWICE.items()}
    got = front(scores, {"right": (0.0, 1.0), "warm": (3.0, 4.0)}, ranges={"right": (0.0, 1.0), "warm": UNBOUNDED})
    assert got.intervals["a"][1] == (-math.inf, math.inf)
    got = front(TWICE, SCALES, ranges={"right": (0.0, 1.0), "warm": UNBOUNDED})
    assert got.intervals["b"][1] == pytest.approx(mean_estimate(TWICE["b"][:, 1])[1:3])


def test_policies_that_answer_alike_are_on_the_front_in_the_same_draws():
    """Three alike and two of the others, whose errors differ by rounding alone: none of the alike dominates another."""
    one, other, *_ = (rng().random((2, 8, 2)) * [1.0, 0.3]) / 7
    scores = {"a": one, "b": one, "c": one, "d": other, "e": other, "ref": one / 3}
    got = front(scores, {"x": (0.0, 1.0), "y": (0.05, 0.35)})
    assert got.share_of_draws["a"] == got.share_of_draws["b"] == got.share_of_draws["c"] > 0
    assert got.share_of_draws["d"] == got.share_of_draws["e"]
    assert got.on_front["a"] == got.on_front["b"] == got.on_front["c"]
