"""Keeps sets of non-dominated points and the volume they dominate; every objective is maximised.

An objective to be minimised is negated or, in an `Archive`, given bounds from worse to better. A point that is worse
than the reference in any objective dominates no volume and contributes 0. (The recursion of the authors of dynamic
reward weighting, arXiv:2509.11452, counts a negative volume for such a point and may raise.)
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Point = Float[np.ndarray, " objectives"]
Points = Float[np.ndarray, "points objectives"]


ROUNDING = 1e-13
"""A gain below this share of the normalised volume is not one."""


def nondominated(points: Points) -> Bool[np.ndarray, " points"]:
    """Which points no other point dominates: none is at least as good in all objectives and better in one.

    Equal points do not dominate each other, so duplicates are all kept or all dropped.

    Raises:
        ValueError: If a coordinate is not finite.
    """
    _finite(points)
    kept = np.ones(len(points), dtype=bool)
    for row, point in enumerate(points):
        kept[row] = not ((points >= point).all(axis=1) & (points > point).any(axis=1)).any()
    return kept


def hypervolume(points: Points, reference: Point) -> float:
    """The volume of all that lies between the reference and some point; 0.0 without points.

    Computed by moocore where it is installed (`alignkit[pareto]`), else by `exact_hypervolume`.

    Args:
        points: In any order, dominated ones and duplicates included; larger is better.
        reference: The worst corner. A point below it in any objective adds nothing.

    Raises:
        ValueError: If a coordinate is not finite.
    """
    _finite(points)
    _finite(reference)
    above = points[(points > reference).all(axis=1)]
    if not len(above):
        return 0.0
    if points.shape[1] > 1 and has_moocore():
        return float(import_module("moocore").hypervolume(above, ref=reference, maximise=True))
    return exact_hypervolume(above - reference)


def has_moocore() -> bool:
    """Whether moocore can be imported; it is imported at the first use only."""
    return find_spec("moocore") is not None


def exact_hypervolume(points: Points) -> float:
    """The volume between the origin and some point, for points with positive coordinates.

    Two objectives are swept in O(n log n), one more each costs a factor n: up to three objectives or few points.
    """
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    heights = points[:, -1] - np.append(points[1:, -1], 0.0)
    if points.shape[1] == 2:
        return float(heights @ np.maximum.accumulate(points[:, 0]))
    slices = [exact_hypervolume(points[: row + 1, :-1]) if height else 0.0 for row, height in enumerate(heights)]
    return float(heights @ np.array(slices))


class Archive:
    """The non-dominated points seen so far, on a scale from 0 (each objective's worse bound) to 1 (its better bound).

    Normalised, because a volume in raw units is ruled by the objective with the longest unit (tokens). A bound may be
    exceeded; it sets the scale and cuts nothing off.

    Args:
        bounds: (worse, better) for each objective; worse > better for one that is minimised.
        reference: The worst corner, normalised; fixed for the life of the archive. None until `add` is first called:
            that point becomes the reference, as in arXiv:2509.11452.
    """

    def __init__(self, bounds: Float[np.ndarray, "objectives 2"], reference: Point | None) -> None:
        self._worse, self._range = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self.points = np.empty((0, len(bounds)))
        self.reference = reference

    def normalise(self, point: Point) -> Point:
        """Raw values on the archive's scale."""
        return (point - self._worse) / self._range

    def gain(self, point: Point) -> float:
        """By how much a normalised point would enlarge the volume; never negative."""
        if self.reference is None:
            return 0.0
        gain = self._volume(np.vstack([self.points, point])) - self.volume
        return gain if gain > ROUNDING else 0.0

    def add(self, point: Point) -> float:
        """Keep a normalised point if it enlarges the volume; returns by how much it does."""
        if self.reference is None:
            self.reference = point.copy()
        gain = self.gain(point)
        if gain > 0:
            points = np.vstack([self.points, point])
            self.points = points[nondominated(points)]
        return gain

    @property
    def volume(self) -> float:
        """The hypervolume of the archive, 1 for a point at every better bound and the reference at every worse one."""
        return self._volume(self.points)

    def _volume(self, points: Points) -> float:
        return 0.0 if self.reference is None else hypervolume(points, self.reference)

    def state_dict(self) -> dict[str, Any]:
        """Points and reference as lists."""
        return {
            "points": self.points.tolist(),
            "reference": None if self.reference is None else self.reference.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: If a fixed reference differs from the saved one: volumes would not be comparable.
        """
        saved: Sequence[float] | None = state["reference"]
        fixed = self.reference
        if fixed is not None and (saved is None or not np.allclose(fixed, saved, rtol=0, atol=1e-12)):
            raise ValueError(
                f"reference: the checkpoint's is {saved}, this run's is {fixed.tolist()} (normalised by the bounds); "
                "a hypervolume has one reference, so use the checkpoint's settings"
            )
        self.reference = None if saved is None else np.array(saved, dtype=float)
        self.points = np.array(state["points"], dtype=float).reshape(-1, len(self._range))


def _finite(values: Float[np.ndarray, "..."]) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"objective values must be finite, got {values[~np.isfinite(values)][0]}; leave such points out"
        )
