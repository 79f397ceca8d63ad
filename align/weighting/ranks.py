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
