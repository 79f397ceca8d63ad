"""Chooses the points of a front that are to be extended, and runs the two stages of C-MORL on whatever trains a policy."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from align.weighting.archive import nondominated

DIGITS = 12
"""Points that agree to so many are one."""


class Member(NamedTuple):
    """A policy of a front."""

    name: str
    values: tuple[float, ...]
    """Its estimate of each objective, all to be maximised."""


def front_of_members(members: Iterable[Member]) -> list[Member]:
    """The members that no other dominates, sorted by their values; of equal ones the first.

    Raises:
        ValueError: If a value is not finite.
    """
    once: dict[tuple[float, ...], Member] = {}
    for member in members:
        once.setdefault(tuple(np.round(member.values, DIGITS).tolist()), member)
    every = [once[key] for key in sorted(once)]
    kept = nondominated(np.array([member.values for member in every]))
    return [member for member, keep in zip(every, kept, strict=True) if keep]


def crowding(points: Float[np.ndarray, "points objectives"]) -> Float[np.ndarray, " points"]:
    """Sum over objectives of (next - previous) / range; infinite at the ends of any objective.

    Equal values keep the order they come in. An objective in which all points agree parts nobody and adds nothing.

    Source: Deb et al. 2002, NSGA-II, section III-B; in C-MORL (Liu et al. 2024, arXiv:2410.02236) it finds sparse points.
    """
    found = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        values = column[order]
        spread = values[-1] - values[0]
        if spread > 0:
            found[order[1:-1]] += (values[2:] - values[:-2]) / spread
            found[order[[0, -1]]] = np.inf
    return found


def sparsest(front: Sequence[Member], done: Iterable[str], count: int) -> list[Member]:
    """At most so many members that were not extended yet, the sparsest first, of equally sparse ones the first."""
    distances = crowding(np.array([member.values for member in front]))
    over = set(done)
    order = sorted(range(len(front)), key=lambda i: (-distances[i], i))
    return [front[i] for i in order if front[i].name not in over][:count]


def buffered(front: Sequence[Member], most: int | None) -> list[Member]:
    """At most so many members: the most crowded are dropped one by one, of equally crowded ones the last."""
    kept = list(front)
    while most is not None and len(kept) > most:
        distances = crowding(np.array([member.values for member in kept]))
        kept.pop(min(range(len(kept)), key=lambda i: (distances[i], -i)))
    return kept


def two_stages(
    first: Sequence[Member],
    extend: Callable[[Member, int, int], Member],
    *,
    extensions: int,
    points: int,
    most: int | None = None,
) -> list[list[Member]]:
    """C-MORL: the front of the first policies, and after each extension of its sparse points towards each objective.

    A member that was extended once is not chosen again; where none is left, it ends.

    Source: Liu et al. 2024, "C-MORL: Multi-Objective Reinforcement Learning through Efficient Discovery of Pareto Front"
    (arXiv:2410.02236), algorithm 1, with the log barrier of section 4.

    Args:
        first: The policies of the first stage, at least one.
        extend: Trains one policy: from which member, towards which objective, in which extension (from 1).
        extensions: How often points are chosen.
        points: How many each time.
        most: Of the buffer, see `buffered`.
    """
    front = buffered(front_of_members(first), most)
    fronts, done = [front], set[str]()
    for number in range(1, extensions + 1):
        starts = sparsest(front, done, points)
        if not starts:
            break
        done |= {member.name for member in starts}
        objectives = len(starts[0].values)
        made = [extend(member, objective, number) for member in starts for objective in range(objectives)]
        front = buffered(front_of_members([*front, *made]), most)
        fronts.append(front)
    return fronts
