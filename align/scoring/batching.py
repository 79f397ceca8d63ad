"""Chooses which sequences go through the model together."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices


class SeededLengthSampler(LengthGroupedSampler):
    """transformers' mega-batches of similar lengths, in an order that depends on seed and epoch alone.

    Its parent draws from the global generator, so that a resumed run would go on with other batches.

    Args:
        batch_size: Members of an optimizer step on one process; fifty of them are a mega-batch.
        lengths: Tokens of each member.
        seed: Of the run.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the beginning of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


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


def tokens_of_pairs(inputs: dict[str, Tensor]) -> Int[Tensor, " pairs"]:
    """Real tokens of both rows of each pair."""
    return inputs["attention_mask"].sum(dim=1).view(2, -1).sum(dim=0)


def pick_pairs(inputs: dict[str, Any], pairs: Int[Tensor, " part"]) -> dict[str, Any]:
    """The batch of some of the pairs, without the columns that are padding in all of them."""
    count = len(inputs["input_ids"]) // 2
    if len(pairs) == count:
        return inputs
    here = pairs.to(inputs["input_ids"].device)
    rows = torch.cat([here, here + count])
    picked = {
        name: value[rows if len(value) == 2 * count else here] if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
    used = picked["attention_mask"].any(dim=0).nonzero()
    columns = slice(int(used[0]), int(used[-1]) + 1)
    return {
        name: value[:, columns] if isinstance(value, Tensor) and value.dim() == 2 else value
        for name, value in picked.items()
    }
