"""The frontier of reward and divergence."""

import pytest
from matplotlib.figure import Figure

from eval.fronts.reward_divergence import Point, area, dominated_share, draw_frontier, upper_front
from eval.statistics.intervals import Estimate


def point(cost, gain, method="m", width=0.0):
    return Point(method, Estimate(cost, cost - width, cost + width, 9), Estimate(gain, gain - width, gain + width, 9))


def test_the_front_keeps_what_nothing_beats():
    points = [point(3, 5), point(1, 2), point(2, 2), point(4, 4), point(2.5, 4), point(1, 1)]
    assert [(p.cost.value, p.gain.value) for p in upper_front(points)] == [(1, 2), (2.5, 4), (3, 5)]


def test_the_area_is_that_of_the_staircase():
    points = [point(1, 2), point(3, 4), point(2, 1), point(9, 100)]
    # from 0 to 1: 0.5; from 1 to 3: 2; from 3 to 4: 4; what costs more than 4 does not count
    assert area(points, budget=4.0, floor=0.5) == pytest.approx((1 * 0 + 2 * 1.5 + 1 * 3.5) / 4)
    assert area([], budget=4.0, floor=0.5) == 0.0
    assert area([point(1, 0.2)], budget=4.0, floor=0.5) == 0.0  # worse than staying at home
    with pytest.raises(ValueError, match="budget must be positive"):
        area(points, budget=0.0, floor=0.0)


def test_a_negative_estimate_of_a_cost_counts_as_none():
    assert area([point(-0.1, 2)], budget=1.0, floor=1.0) == pytest.approx(1.0)


def test_dominance_is_claimed_beyond_the_intervals_only():
    weak = [point(2, 1, width=0.1), point(2, 3, width=0.1)]
    assert dominated_share(weak, [point(1, 2, width=0.1)]) == 0.5
    assert dominated_share(weak, [point(1, 2, width=1.1)]) == 0.0
    assert dominated_share(weak, [point(1.9, 2, width=0.1)]) == 0.0
    assert dominated_share(weak[:1], [point(1, 1.05, width=0.1)]) == 0.0  # cheaper, and better within noise only
    assert dominated_share([], weak) == 0.0


def test_every_method_is_drawn_with_both_intervals():
    axes = Figure().subplots()
    draw_frontier(
        axes, [point(1, 2, "a", 0.2), point(2, 3, "b")], colours={"a": "red", "b": "blue"}, cost="c", gain="g"
    )
    assert [line.get_label() for line in axes.containers] == ["a", "b"]
    assert axes.get_xlabel() == "c"
