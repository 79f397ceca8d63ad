"""Chooses what adapters are mixed with, where something is measured on the way: greedy soup, Frank-Wolfe, Fisher, SLERP.

Points are whatever can be mixed: coefficients of adapters, for which `align.merging.adapters.soup` makes the exact adapter.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class GreedySoup(NamedTuple):
    """Members that were kept, and what their even mix is worth."""

    kept: list[int]
    """Indices of members, in the order in which they were taken; each has the weight 1 / len(kept)."""
    weights: list[float]
    """One for each member, 0 for those that were left out."""
    score: float
    """On the prompts it was chosen by; report on others, of which this says too much."""


def greedy_soup(members: int, score: Callable[[list[float]], float]) -> GreedySoup:
    """Members by their own score, each kept if the even mix does not get worse; so never below the best member.

    Source: Wortsman et al. 2022, "Model soups" (arXiv:2203.05482), recipe 1.

    Args:
        members: How many there are.
        score: The validation estimate of a mix, from one weight for each member; larger is better.

    Raises:
        ValueError: If there is none, or a score is not finite.
    """
    if members < 1:
        raise ValueError(f"members: must be at least 1, got {members}")

    def even(kept: Sequence[int]) -> list[float]:
        return [1 / len(kept) if index in kept else 0.0 for index in range(members)]

    def measured(kept: Sequence[int]) -> float:
        value = float(score(even(kept)))
        if not math.isfinite(value):
            raise ValueError(f"score: must be finite, got {value} for the mix of {list(kept)}")
        return value

    alone = [measured([index]) for index in range(members)]
    order = sorted(range(members), key=lambda index: (-alone[index], index))
    kept, best = order[:1], alone[order[0]]
    for index in order[1:]:
        value = measured([*kept, index])
        if value >= best:
            kept, best = [*kept, index], value
    return GreedySoup(kept, even(kept), best)


def frank_wolfe(
    members: int, gradient: Callable[[list[float]], Sequence[float]], *, steps: int, start: int = 0
) -> list[float]:
    """Weights on the simplex of members that bring the loss of a proxy set down, by steps 2 / (t + 2) towards a member.

    Each step goes to the member with the least partial derivative; the first goes all the way. For a convex loss the gap is
    at most 2 C / (t + 2) after t steps. The authors choose by the cosine and layer by layer; this is the plain method.

    Source: Frank and Wolfe 1956; Chen et al. 2025, "FW-Merging" (arXiv:2503.12649), on models.

    Args:
        members: How many there are.
        gradient: The derivative of the loss by each weight, at weights of sum 1.
        steps: How many.
        start: The member that it begins with.

    Raises:
        ValueError: If there is no such member, or a derivative is not finite.
    """
    if not 0 <= start < members:
        raise ValueError(f"start: the index of a member, 0 to {members - 1}, got {start}")
    weights = [float(index == start) for index in range(members)]
    for step in range(steps):
        slopes = [float(slope) for slope in gradient(weights)]
        if len(slopes) != members or not all(map(math.isfinite, slopes)):
            raise ValueError(f"gradient: one finite number for each of {members} members, got {slopes}")
        goal, share = min(range(members), key=slopes.__getitem__), 2 / (step + 2)
        weights = [(1 - share) * weight + share * (index == goal) for index, weight in enumerate(weights)]
    return weights


def fisher_merge(
    changes: Sequence[Float[Tensor, "..."]],
    fishers: Sequence[Float[Tensor, "..."]],
    weights: Sequence[float],
    *,
    floor: float = 1e-6,
) -> Float[Tensor, "..."]:
    """Σ w_m F_m ΔW_m / Σ w_m F_m, entry by entry: where all losses are quadratic and F their diagonal, the posterior mean.

    On ΔW and not on the factors, whose product stays the same when one is scaled up and the other down; a Fisher
    information of the factors does not.

    Source: Matena and Raffel 2022, "Merging models with Fisher-weighted averaging" (arXiv:2111.09832), equation 2.

    Args:
        changes: ΔW of one module for each adapter, all of one shape.
        fishers: The diagonal of each one's Fisher information, of the same shape, not negative.
        weights: One for each adapter, not negative.
        floor: The least that an entry of F counts.

    Raises:
        ValueError: If shapes differ, or a number is negative.
    """
    shapes = {tuple(one.shape) for one in (*changes, *fishers)}
    if len(shapes) != 1 or not len(changes) == len(fishers) == len(weights):
        raise ValueError(
            f"changes, fishers and weights: one of each for an adapter, of one shape, got {sorted(shapes)}"
        )
    if any(bool((f < 0).any()) for f in fishers) or min(weights) < 0 or not any(weights):
        raise ValueError("fishers and weights: must not be negative, and weights not all 0")
    counted = [w * f.clamp_min(floor) for w, f in zip(weights, fishers, strict=True)]
    top = sum((f * change for f, change in zip(counted, changes, strict=True)), torch.zeros_like(changes[0]))
    return top / sum(counted, torch.zeros_like(changes[0]))


def slerp_weights(cosine: float, share: float) -> tuple[float, float]:
    """Weights of two changes for a point on the arc between them: sin((1 - t) θ) / sin θ and sin(t θ) / sin θ.

    Where the two point the same way or against each other, there is no one arc, and the straight line is taken.

    Source: Shoemake 1985, "Animating rotation with quaternion curves".

    Args:
        cosine: Of the angle θ between them.
        share: t, from 0 (the first) to 1 (the second).
    """
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    sine = math.sin(angle)
    if sine < 1e-6:
        return 1 - share, share
    return math.sin((1 - share) * angle) / sine, math.sin(share * angle) / sine
