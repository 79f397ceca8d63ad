"""Compares reward against divergence over many runs, to see who reaches more at the same cost.

Every divergence looks best on its own axis, so draw several: the reverse KL frontier is won by the reverse KL by
construction.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from eval.statistics.intervals import Estimate


class Point(NamedTuple):
    """One run (a method, a β, a seed): what it cost and what it reached."""

    method: str
    cost: Estimate
    gain: Estimate


def upper_front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats on both axes (less cost and more gain), by rising cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost.value, -p.gain.value)):
        if not front or point.gain.value > front[-1].gain.value:
            front.append(point)
    return front


def area(points: Sequence[Point], *, budget: float, floor: float) -> float:
    """Mean gain above `floor` over all costs in [0, budget], spending at most the cost: the front as a staircase.

    Args:
        points: Runs of one method.
        budget: Up to which cost, in its unit. Use the same for all methods.
        floor: Gain at no cost: the reference's.

    Raises:
        ValueError: If `budget` is not positive.
    """
    if budget <= 0:
        raise ValueError(f"budget must be positive, got {budget}")
    total, gain, at = 0.0, floor, 0.0
    for point in upper_front(points):
        if point.cost.value >= budget:
            break
        cost = max(point.cost.value, 0.0)
        total += (cost - at) * (gain - floor)
        gain, at = max(gain, point.gain.value), cost
    return (total + (budget - at) * (gain - floor)) / budget


def dominated_share(points: Sequence[Point], by: Sequence[Point]) -> float:
    """Share of `points` that some point of `by` beats beyond doubt: its intervals do not touch theirs on either axis."""
    beaten = sum(
        any(other.cost.high < point.cost.low and other.gain.low > point.gain.high for other in by) for point in points
    )
    return beaten / len(points) if points else 0.0


def draw_frontier(axes: Axes, points: Sequence[Point], *, colours: dict[str, str], cost: str, gain: str) -> None:
    """Every run with both intervals, and each method's front as a staircase."""
    for method, colour in colours.items():
        own = [point for point in points if point.method == method]
        x = np.array([p.cost.value for p in own])
        y = np.array([p.gain.value for p in own])
        spread = lambda estimates: np.array([[e.value - e.low, e.high - e.value] for e in estimates]).T  # noqa: E731
        if own:
            axes.errorbar(
                x, y, xerr=spread([p.cost for p in own]), yerr=spread([p.gain for p in own]), fmt="o", color=colour,
                markersize=3.5, elinewidth=0.6, alpha=0.75, label=method,
            )  # fmt: skip
        front = upper_front(own)
        axes.step([p.cost.value for p in front], [p.gain.value for p in front], where="post", color=colour, linewidth=1)
    axes.set(xlabel=cost, ylabel=gain)
