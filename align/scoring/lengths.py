"""Which sequences go through the model together."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def parts_within(tokens: Sequence[int], budget: int) -> list[Int[Tensor, " part"]]:
    """Split a batch into parts of at most `budget` tokens, similar lengths together.

    Every part is padded to its longest member at worst, so a part of n members counts as n times the longest. A member
    that is longer than the budget on its own is a part of its own.

    Args:
        tokens: Tokens of each member, at least one member.
        budget: Most tokens of a part.

    Returns:
        Indices of each part's members; together a permutation of the batch. Longest members first, so that memory runs
        out in the first part or never.
    """
    parts: list[list[int]] = []
    for index in sorted(range(len(tokens)), key=lambda i: (-tokens[i], i)):
        if not parts or tokens[parts[-1][0]] * (len(parts[-1]) + 1) > budget:
            parts.append([])
        parts[-1].append(index)
    return [torch.tensor(part, dtype=torch.long) for part in parts]
