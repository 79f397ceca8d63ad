"""Refuses, before training, pairs whose answers truncation leaves nothing to tell apart by."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import Dataset

from align.data.rows.truncation import truncated
from align.errors import DataError
from align.findings import shown

from .lengths import PARTS

SLICE = 1000  # rows read at a time


def refuse_cut_to_same(dataset: Dataset, max_length: int | None, *, where: str) -> None:
    """Raise if a trainer would see two answers as the same tokens: such pairs cost a step and give no gradient.

    Args:
        dataset: Tokenised pairs: `prompt_ids`, `chosen_ids`, `rejected_ids`.
        max_length: Tokens after which the collator cuts.
        where: What to call the caller.

    Raises:
        DataError: Naming the pairs, counted from 1 in this data set, and what would keep them apart.
    """
    columns = [f"{part}_ids" for part in PARTS]
    same: list[int] = []
    needed, start, whole = 0, 0, False
    table: Any = dataset.select_columns(columns).with_format("arrow")
    for rows in table.iter(batch_size=SLICE):
        pairs = zip(*(_arrays(rows[column]) for column in columns), strict=True)
        for number, (prompt, chosen, rejected) in enumerate(pairs, start + 1):
            kept = [truncated(prompt, answer, max_length)[1] for answer in (chosen, rejected)]
            if np.array_equal(*kept):
                same.append(number)
                shorter = min(len(chosen), len(rejected))
                apart = np.flatnonzero(chosen[:shorter] != rejected[:shorter])
                whole = whole or (len(chosen) == len(rejected) == shorter and not len(apart))
                needed = max(needed, len(prompt) + int(apart[0] if len(apart) else shorter) + 1)
        start += len(rows)
    if same:
        remedy = "remove them" if whole else f"remove them, or set max_length={needed}"
        raise DataError(
            f"{where}: the two answers of {len(same)} of {len(dataset)} pairs are the same tokens within "
            f"max_length={max_length}{shown(same)}; they give no gradient: {remedy}"
        )


def _arrays(column: Any) -> Iterator[np.ndarray]:
    """The lists of an Arrow column, not copied."""
    for chunk in column.chunks if hasattr(column, "chunks") else [column]:
        values, offsets = chunk.flatten().to_numpy(zero_copy_only=False), chunk.offsets.to_numpy()
        offsets = offsets - offsets[0]
        yield from (values[a:b] for a, b in pairwise(offsets))
