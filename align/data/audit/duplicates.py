"""Finds what shows only across rows: contradictions, repetitions, and pairs that are trained on and evaluated on.

Rows are compared by 64-bit digests, 24 bytes a pair, so that a million rows need 24 MB and no text is kept. Two different
pairs of a million share a digest by chance once in about ten million data sets.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Int64, UInt64

from align.data.prompts import prompt_of
from align.data.rows.columns import TEMPLATE
from align.data.rows.normalise import ROW, SLICE
from align.data.rows.tables import only_texts
from align.data.rows.tables import slices as arrow_slices
from align.errors import DataError
from align.findings import Finding, shown

from .written import all_written, written

logger = logging.getLogger(__name__)

PARTS = ("prompt", "chosen", "rejected")
ODD = np.uint64(0x9E3779B97F4A7C15)
Mask = Bool[np.ndarray, " pairs"]


class Digests(NamedTuple):
    """Digests of the parts of pairs; those of answers cover their prompt."""

    prompt: UInt64[np.ndarray, " pairs"]
    chosen: UInt64[np.ndarray, " pairs"]
    rejected: UInt64[np.ndarray, " pairs"]

    @property
    def pair(self) -> UInt64[np.ndarray, " pairs"]:
        """One number for prompt, chosen and rejected, in this order."""
        return _ordered(self.chosen, self.rejected)

    @property
    def either_way(self) -> UInt64[np.ndarray, " pairs"]:
        """One number for a pair, whichever of its answers is chosen."""
        return _ordered(np.minimum(self.chosen, self.rejected), np.maximum(self.chosen, self.rejected))


def _ordered(first: UInt64[np.ndarray, " pairs"], second: UInt64[np.ndarray, " pairs"]) -> UInt64[np.ndarray, " pairs"]:
    return (first * ODD) ^ second  # wraps


def row_digest(prompt: Any, chosen: Any, rejected: Any) -> tuple[int, int, int]:
    """Digests of one normalised pair, of what shows of its texts."""
    return _numbers(written(prompt), written(chosen), written(rejected))


def _numbers(prompt: bytes, chosen: bytes, rejected: bytes) -> tuple[int, int, int]:
    context = blake2b(prompt, digest_size=8)
    sides = [context.copy(), context.copy()]
    for side, answer in zip(sides, (chosen, rejected), strict=True):
        side.update(b"\0" + answer)
    first, second, third = (int.from_bytes(each.digest(), "little") for each in (context, *sides))
    return first, second, third


def digests(dataset: Dataset) -> Digests:
    """Digests of normalised pairs, a slice of rows at a time."""
    given = set(TEMPLATE) & set(dataset.column_names)
    if given or not all(only_texts(dataset.features[part]) for part in PARTS):
        return collect(
            row_digest(*row) for rows in slices(dataset) for row in zip(*(rows[p] for p in PARTS), strict=True)
        )
    tables = arrow_slices(dataset, PARTS)
    return collect(
        _numbers(*row) for part in tables for row in zip(*(all_written(part[p]) for p in PARTS), strict=True)
    )


def collect(numbers: Iterator[tuple[int, int, int]]) -> Digests:
    """Columns from digests of rows."""
    table = np.fromiter(numbers, dtype=np.dtype((np.uint64, 3)))
    return Digests(*np.ascontiguousarray(table.T))


def slices(dataset: Dataset) -> Iterator[Mapping[str, list[Any]]]:
    """The three columns of a normalised set as Python lists, so many rows at a time; prompts with what templates are given."""
    given = [name for name in TEMPLATE if name in dataset.column_names]
    columns = dataset.select_columns([*PARTS, *given])
    for start in range(0, len(dataset), SLICE):
        part = {name: list(column) for name, column in columns[start : start + SLICE].items()}
        if given:
            part["prompt"] = [prompt_of(dict(zip(part, row, strict=True))) for row in zip(*part.values(), strict=True)]
        yield {name: part[name] for name in PARTS}


def among(values: UInt64[np.ndarray, " values"], known: UInt64[np.ndarray, " known"]) -> Bool[np.ndarray, " values"]:
    """`np.isin`, in a third of its memory: one sorted copy, where it sorts both together."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    ordered = np.sort(known)
    return ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values


def contradictory(pairs: Digests) -> Mask:
    """Pairs whose two answers are in another pair the other way around."""
    swapped = among(pairs.pair, _ordered(pairs.rejected, pairs.chosen))
    return swapped & (pairs.chosen != pairs.rejected)


def first_like(pairs: Digests) -> Int64[np.ndarray, " pairs"]:
    """Index of the first pair that is the same as each."""
    _, first, inverse = np.unique(pairs.pair, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def circular(pairs: Digests) -> Mask:
    """Pairs that no order of the answers fits: those left when best and worst answers are taken away, again and again."""
    left = np.arange(len(pairs.chosen))
    while len(left):
        kept = left[among(pairs.chosen[left], pairs.rejected[left]) & among(pairs.rejected[left], pairs.chosen[left])]
        if len(kept) == len(left):
            break
        left = kept
    mask = np.zeros(len(pairs.chosen), dtype=bool)
    mask[left] = True
    return mask


def at(mask: Mask, numbers: Sequence[int]) -> tuple[int, ...]:
    """Row numbers of the pairs that a mask marks."""
    return tuple(int(numbers[int(index)]) for index in np.flatnonzero(mask))


def numbering(dataset: Dataset) -> Sequence[int]:
    """Numbers of a set's rows in its source: the column `alignkit_row` if there is one, else they count from 1."""
    if ROW not in dataset.column_names:
        return range(1, len(dataset) + 1)
    held: Any = dataset.with_format("numpy", columns=[ROW])[:][ROW]
    return memoryview(held.astype(np.int64))  # 8 bytes a row, and Python's numbers one at a time


def contradictions(pairs: Digests, *, where: str, numbers: Sequence[int]) -> Finding | None:
    """The finding for contradictory pairs, if there are some."""
    mask = contradictory(pairs)
    if not mask.any():
        return None
    message = f"{mask.sum()} of {len(mask)} pairs have the prompt and the answers of another pair, chosen and rejected swapped"
    remedy = "keep one of each two, or neither"
    return Finding("error", "contradictory-pairs", where, message, remedy, at(mask, numbers))


def leaked(
    train: Digests, held: Digests, *, names: tuple[str, str], numbers: tuple[Sequence[int], Sequence[int]]
) -> Finding | None:
    """The finding for pairs that are in both sets; a warning if a whole evaluation set is training data, as may be meant.

    Args:
        train: Pairs that are trained on.
        held: Pairs of an evaluation set.
        names: What to call the two.
        numbers: Row numbers of the two.
    """
    inside, known = among(train.either_way, held.either_way), among(held.either_way, train.either_way)
    if not known.any():
        return None
    where, rows = f"{names[0]} against {names[1]}", at(inside, numbers[0])
    if known.all():
        message = f"all {len(known)} pairs of {names[1]} are trained on: its metrics say how well they are remembered"
        return Finding("warning", "evaluated-on-training-data", where, message, "evaluate on other pairs too", rows)
    message = f"{known.sum()} of {len(known)} pairs of {names[1]}{shown(at(known, numbers[1]))} are also in {names[0]}"
    return Finding("error", "leakage", where, message, f"remove them from {names[0]}", rows)


def refuse_damaged(sets: Mapping[str, Dataset], *, unusable: str = "error") -> dict[str, Dataset]:
    """Refuse, or leave out, what `normalise` cannot see: contradictory pairs, and evaluated pairs that are trained on.

    Of two contradictory pairs both are left out, since nothing says which is right. A pair that is in an evaluation set
    is left out of training, so that the evaluation set stays what it is for others.

    Args:
        sets: Normalised sets by name, the training set first. Their rows are numbered by the column `alignkit_row`, if
            there is one.
        unusable: "error" or "drop".

    Returns:
        The sets, without the rows that were left out.

    Raises:
        DataError: Naming rows and what to do, or if nothing is left to train on.
    """
    pairs = {name: digests(dataset) for name, dataset in sets.items()}
    numbers = {name: numbering(dataset) for name, dataset in sets.items()}
    train = next(iter(sets))
    found: list[Finding] = []
    gone: dict[str, set[int]] = {name: set() for name in sets}
    for name in sets:
        conflict = contradictions(pairs[name], where=name, numbers=numbers[name])
        if conflict is not None:
            found.append(conflict)
            gone[name].update(conflict.rows)
        leak = name != train and leaked(
            pairs[train], pairs[name], names=(train, name), numbers=(numbers[train], numbers[name])
        )
        if leak and leak.level == "error":
            found.append(leak)
            gone[train].update(leak.rows)
        elif leak:
            logger.warning("%s", leak.line().partition(": ")[2])
    if found and unusable == "error":
        told = "\n".join(finding.line().partition(": ")[2] for finding in found)
        raise DataError(
            f"{told}\n  (`alignkit data fix` drops contradictory pairs; data.unusable=drop trains without all these)"
        )
    for finding in found:
        logger.warning(
            "dropped from %s: %s", finding.where.partition(" against ")[0], finding.line().partition(": ")[2]
        )
    kept = {}
    for name, dataset in sets.items():
        stay = [index for index, number in enumerate(numbers[name]) if number not in gone[name]] if gone[name] else None
        if stay == []:
            raise DataError(f"{name}: no rows are left once contradictory and leaked pairs are dropped")
        kept[name] = dataset if stay is None else dataset.select(stay)
    return kept
