"""Mixes several sources of rows: so many of each, none twice, each spread evenly over the whole."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, cast

import numpy as np
from datasets import Dataset, Json, concatenate_datasets

from align.data.rows.messages import SIDES
from align.data.rows.normal_form import all_visible
from align.data.rows.normalise import ROW, SLICE, table_of
from align.errors import DataError
from align.findings import Finding, printable

LEAST_STEP = 1000
"""Rows of the second source are counted from this number on, if the first has fewer; else from a larger power of ten."""
EMPTY = {"chat_template_kwargs": {}}


def drawn(dataset: Dataset, *, fraction: int | float | None, max_rows: int | None) -> Dataset:
    """A share of the rows, and at most so many, in their order; which ones depends on nothing but their number."""
    count = len(dataset) if fraction is None else max(1, round(fraction * len(dataset)))
    count = min(count, len(dataset) if max_rows is None else max_rows)
    return dataset if count == len(dataset) else dataset.select(_some(len(dataset), count))


def mixed(
    parts: Sequence[Dataset],
    paths: Sequence[str],
    weights: Sequence[int | float | None],
    where: str,
    told: list[Finding],
) -> tuple[Dataset, list[dict[str, Any]]]:
    """One set of the rows of several, each in proportion to its weight, without weights all of them.

    A row that an earlier source has too is left out. With weights the source that is shortest for its weight is used whole,
    and of the others so many rows are drawn that the shares are as they should be.

    Args:
        parts: Normalised rows of the same kind, with the column `alignkit_row`.
        paths: What to call them.
        weights: Of each, in any unit, or None for all.
        where: What to call the whole.
        told: Shares and rows left out are added to it.

    Returns:
        The set, whose rows are numbered through, and of each source its path, rows, rows left out as known, and share.

    Raises:
        DataError: If a source has nothing of its own, or some are text and others messages.
    """
    plain = [isinstance(part[0]["prompt"], str) for part in parts]
    if len(set(plain)) > 1:
        one, other = plain.index(True), plain.index(False)
        raise DataError(
            f"{where}: plain strings and chat messages are mixed: {paths[one]} is text, {paths[other]} messages; "
            "data.as_messages=true reads text as messages"
        )
    parts, known = _without_known(parts, paths, where)
    counts = _counts([len(part) for part in parts], weights)
    step = 10 ** max(
        math.ceil(math.log10(max(int(max(part[ROW])) for part in parts) + 1)), round(math.log10(LEAST_STEP))
    )
    kept = [
        _renumbered(part.select(_some(len(part), count)), k * step)
        for k, (part, count) in enumerate(zip(parts, counts, strict=True))
    ]
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    whole = _joined(kept).select(np.argsort(places, kind="stable"))
    shares = [
        {"path": path, "rows": count, "of": len(part), "known": left, "share": count / sum(counts)}
        for path, count, part, left in zip(paths, counts, parts, known, strict=True)
    ]
    said = "; ".join(f"{s['path']}: {s['rows']} of {s['of']} rows, {s['share']:.1%}" for s in shares)
    message = f"{said}; rows are counted from 1, {', '.join(str(k * step + 1) for k in range(1, len(parts)))}"
    told.append(Finding("note", "shares", where, printable(message, 1000), "nothing to do"))
    if any(known):
        twice = ", ".join(f"{left} of {path}" for path, left in zip(paths, known, strict=True) if left)
        message = f"left out because an earlier source has the same row: {printable(twice, 500)}"
        told.append(Finding("note", "in-two-sources", where, message, "nothing to do"))
    return whole, shares


def _counts(available: Sequence[int], weights: Sequence[int | float | None]) -> list[int]:
    """How many rows of each source make the largest set without repetition."""
    given = [weight for weight in weights if weight is not None]
    if not given:
        return list(available)
    unit = min(n / weight for n, weight in zip(available, given, strict=True))
    return [max(1, math.floor(weight * unit + 1e-9)) for weight in given]


def _some(total: int, count: int) -> list[int]:
    """Positions of `count` rows, drawn by a fixed seed, in their order."""
    return sorted(np.random.default_rng(0).permutation(total)[:count].tolist())


def _without_known(parts: Sequence[Dataset], paths: Sequence[str], where: str) -> tuple[list[Dataset], list[int]]:
    """The sources without rows that one before them has, and how many these were."""
    seen: set[bytes] = set()
    kept, known = [], []
    for part, path in zip(parts, paths, strict=True):
        keys = list(_keys(part))
        own = [index for index, key in enumerate(keys) if key not in seen]
        if not own:
            raise DataError(f"{where}: every row of {path} is in an earlier source too; leave it out")
        seen.update(keys)
        kept.append(part.select(own) if len(own) < len(keys) else part)
        known.append(len(keys) - len(own))
    return kept, known


def _keys(dataset: Dataset) -> Iterator[bytes]:
    names = [name for name in ("prompt", *SIDES, "label") if name in dataset.column_names]
    for row in cast("Iterable[Any]", dataset.select_columns(names)):
        shown = [all_visible(row[name]) for name in names]
        yield blake2b(json.dumps(shown, sort_keys=True).encode(), digest_size=16).digest()


def _renumbered(part: Dataset, offset: int) -> Dataset:
    return part.remove_columns(ROW).add_column(ROW, [number + offset for number in part[ROW]])


def _joined(parts: Sequence[Dataset]) -> Dataset:
    """One set with the columns of all; where a source has none of a column its rows have nothing there."""
    features = [dict(part.features) for part in parts]
    if all(each == features[0] for each in features):
        return concatenate_datasets(list(parts))
    names = list(dict.fromkeys(name for each in features for name in each))
    nested = {name for each in features for name, kind in each.items() if isinstance(kind, Json)}
    nested |= (
        {name for name in ("prompt", *SIDES) if name in names and not isinstance(parts[0][0]["prompt"], str)}
        if nested
        else set()
    )
    tables = []
    for part in parts:
        for start in range(0, len(part), SLICE):
            rows: list[dict[str, Any]] = part.select(range(start, min(start + SLICE, len(part)))).to_list()
            tables.append(table_of([{name: row.get(name, EMPTY.get(name)) for name in names} for row in rows], nested))
    try:
        return concatenate_datasets(tables)
    except (ValueError, TypeError) as error:
        raise DataError(f"the sources' columns are of different kinds: {printable(str(error), 300)}") from None
