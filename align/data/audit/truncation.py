"""Refuses, before training, rows of which truncation leaves nothing to learn from."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from align.data.rows.tables import listed
from align.data.rows.truncation import truncated, truncated_lengths
from align.errors import DataError
from align.findings import shown

from .lengths import IDS

logger = logging.getLogger(__name__)

SLICE = 1000  # rows read at a time


def refuse_cut_to_same(
    dataset: Dataset,
    max_length: int | None,
    *,
    where: str,
    numbers: Sequence[int] | np.ndarray | None = None,
    total: int | None = None,
) -> None:
    """Raise if a trainer would see two answers as the same tokens: such pairs cost a step and give no gradient.

    Args:
        dataset: Tokenised pairs: `prompt_ids`, `chosen_ids`, `rejected_ids`.
        max_length: Tokens after which the collator cuts.
        where: What to call the caller.
        numbers: What to call each pair; by default they count from 1.
        total: Pairs in all, if these are some of them.

    Raises:
        DataError: Naming the pairs, and what would keep them apart.
    """
    columns = list(IDS)
    same: list[int] = []
    needed, start, whole = 0, 0, False
    table: Any = dataset.select_columns(columns).with_format("arrow")
    for rows in table.iter(batch_size=SLICE):
        parts = [listed(rows[column]) for column in columns]
        lengths = [np.diff(offsets) for _, offsets in parts]
        left = [truncated_lengths(lengths[0], each, max_length)[1] for each in lengths[1:]]
        for index in np.flatnonzero(left[0] == left[1]):
            prompt, chosen, rejected = (values[offsets[index] : offsets[index + 1]] for values, offsets in parts)
            one, other = (truncated(prompt, answer, max_length)[1] for answer in (chosen, rejected))
            if np.array_equal(one, other):
                row = start + int(index)
                same.append(row + 1 if numbers is None else int(numbers[row]))
                shorter = min(len(chosen), len(rejected))
                apart = np.flatnonzero(chosen[:shorter] != rejected[:shorter])
                whole = whole or (len(chosen) == len(rejected) == shorter and not len(apart))
                needed = max(needed, len(prompt) + int(apart[0] if len(apart) else shorter) + 1)
        start += len(rows)
    if same:
        remedy = "remove them" if whole else f"remove them, or set max_length={needed}"
        raise DataError(
            f"{where}: the two answers of {len(same)} of {total or len(dataset)} pairs are the same tokens within "
            f"max_length={max_length}{shown(same)}; they give no gradient: {remedy}"
        )


def say_left_out(left: int, total: int, max_length: int | None, *, where: str) -> None:
    """Warn of completions of which truncation leaves nothing to learn.

    Args:
        left: Rows that keep some of their completion.
        total: Rows in all.
        max_length: Tokens after which rows are cut.
        where: What to call the rows.

    Raises:
        DataError: If no row is left.
    """
    told = f"{where}: max_length={max_length} leaves no token to learn in {total - left} of {total} rows"
    if not left:
        raise DataError(f"{told}; raise it")
    if left < total:
        logger.warning("%s: they are left out", told)


def refuse_none_left(left: int, max_length: int | None, *, where: str) -> None:
    """Raise if no pair is left to learn from.

    Args:
        left: Pairs whose prompt leaves room for an answer.
        max_length: Tokens after which the collator cuts.
        where: What to call the caller.

    Raises:
        DataError: Saying what would leave some.
    """
    if not left:
        raise DataError(
            f"{where}: no pair is left: all that stands before its answers (tools and drafts too) fills max_length={max_length}; "
            "raise it or shorten the prompts"
        )
