"""Ranks points of each group by the front they lie in, for advantages that compare no scales."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def fronts(
    points: Float[Tensor, "prompts group objectives"], present: Bool[Tensor, "prompts group"]
) -> Int[Tensor, "prompts group"]:
    """Front that each point lies in: 0 if no point of its group is better somewhere and worse nowhere, and so on."""
    above, below = points[:, :, None], points[:, None]  # (prompts, i, j, objectives): does i dominate j?
    dominates = (above >= below).all(dim=-1) & (above > below).any(dim=-1) & present[:, :, None]
    rank, left = torch.zeros(present.shape, dtype=torch.long), present
    while bool(left.any()):
        left = left & (dominates & left[:, :, None]).any(dim=1)
        rank += left
    return rank


def undominated(
    points: Float[Tensor, "prompts group objectives"], present: Bool[Tensor, "prompts group"]
) -> Float[Tensor, "prompts group"]:
    """The uniform law on the points of each group that lie in its first front; 0 throughout where no point is present.

    A point counts as often as it occurs. Source: the label of order-preserving GFlowNets (arXiv:2310.00386).
    """
    first = ((fronts(points, present) == 0) & present).to(points.dtype)
    return first / first.sum(dim=1, keepdim=True).clamp(min=1)
