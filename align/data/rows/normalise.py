"""Rows normalised to TRL's explicit formats.

`pairs`: `prompt`, `chosen`, `rejected`, in the layouts of `rows`. `completions`: `prompt`, `completion`. `prompts`: `prompt`
and every other column as it is, for reward functions (both in `other_rows`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datasets import Dataset, concatenate_datasets

from align.errors import DataError

from .completions import read_completion, read_prompt
from .pairs import RowError, read_row

Rows = Literal["pairs", "completions", "prompts"]
"""What a row of a method's data is."""

REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
ROW = "alignkit_row"
"""Column of row numbers, counted from 1 in the source, for rows that are split or dropped before they are spoken of."""
ALIASES: dict[Rows, tuple[dict[str, str], ...]] = {
    "pairs": (
        {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        {"chosen": "chosen", "rejected": "rejected"},
        {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
    ),
    "completions": ({"prompt": "prompt", "completion": "completion"}, {"completion": "messages"}),
    "prompts": ({"prompt": "prompt"},),
}
"""For each kind of rows the layouts of columns, ours to theirs, tried in this order."""
READ = {"pairs": read_row, "completions": read_completion, "prompts": read_prompt}
LIKE_A_PROMPT = ("instruction", "question", "query", "input", "context", "Prompt")
SHOWN = 10
LONGEST = 4_000_000  # characters of a row, about a million tokens
SLICE = 10_000  # rows that are Python objects at a time


def normalise(
    raw: Dataset,
    *,
    columns: Mapping[str, str],
    where: str,
    unusable: str = "error",
    keep: Sequence[str] = (),
    texts: Sequence[str] = (),
    rows: Rows = "pairs",
) -> tuple[Dataset, list[str]]:
    """Bring every row to one format, its texts all strings or all lists of messages.

    Args:
        raw: Rows in one of the layouts above.
        columns: Our name to theirs, where they differ.
        where: What to call the source in messages.
        unusable: "error" or "drop".
        keep: Further columns to carry over unchanged; numbers, and required. `columns` may name them too.
        texts: Likewise columns of texts that are not empty.
        rows: What a row is; of `prompts` all columns are carried over.

    Returns:
        The normalised data and a line for each dropped row.

    Raises:
        DataError: If the columns fit no layout, rows cannot be used (and `unusable` is "error"), none is left, or
            plain and conversational rows are mixed.
    """
    renamed = {k: v for k, v in columns.items() if rows == "prompts" and k != "prompt"}
    known = (*keep, *texts, *renamed)
    mapping = layout(raw.column_names, {k: v for k, v in columns.items() if k not in known}, where, rows)
    theirs = {name: columns.get(name, name) for name in (*keep, *texts)}
    likely = [name for name in LIKE_A_PROMPT if name in raw.column_names]
    if (
        rows == "pairs"
        and "prompt" not in mapping
        and likely
        and getattr(raw.features[mapping["chosen"]], "dtype", "") == "string"
    ):
        raise DataError(
            f"{where}: no column 'prompt', but {likely[0]!r}; name it with `columns: {{prompt: {likely[0]}}}`, or remove it "
            "if the answers hold the prompt"
        )
    missing = [name for name in (*theirs.values(), *renamed.values()) if name not in raw.column_names]
    if missing:
        need = "ref.kind=cached" if set(missing) & set(REF_COLUMNS) else "`columns`" if renamed else "the objective"
        raise DataError(
            f"{where}: missing column {', '.join(missing)}, which {need} needs; there are "
            f"{', '.join(name for name in raw.column_names if name != ROW)}"
        )
    taken = (*mapping.values(), *keep, *renamed.values())
    others = {name: name for name in raw.column_names if rows == "prompts" and name not in taken} | renamed
    parts: list[Dataset] = []
    problems: list[str] = []
    usable, plain, mixed_at = 0, None, None
    for start in range(0, len(raw), SLICE):
        part: list[dict[str, Any]] = []
        for number, row in enumerate(_slice(raw, start), start=start + 1):
            try:
                kept = (
                    {ours: (_text if ours in texts else _number)(row[name], name) for ours, name in theirs.items()}
                    if row
                    else {}
                )
                part.append(
                    _bounded(READ[rows](row, mapping)) | {ours: row[name] for ours, name in others.items()} | kept
                )
            except RowError as error:
                problems.append(f"row {number}: {error}")
                continue
            usable += 1
            plain = isinstance(part[-1]["prompt"], str) if plain is None else plain
            if mixed_at is None and isinstance(part[-1]["prompt"], str) != plain:
                mixed_at = number
        if part and mixed_at is None:
            parts.append(Dataset.from_list(part))
    if problems and (unusable == "error" or not usable):
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n  ".join(problems[:SHOWN])
        raise DataError(
            f"{where}: {len(problems)} of {len(raw)} rows cannot be used:\n  {listed}{more}\n"
            "  mend them (`alignkit data fix` mends or drops them in a copy), "
            "or set data.unusable=drop to train without them"
        )
    if not usable:
        raise DataError(f"{where}: no rows; name a file or a split that has some")
    if mixed_at is not None:
        kinds = ("plain text", "chat messages") if plain else ("chat messages", "plain text")
        raise DataError(
            f"{where}: plain strings and chat messages are mixed: row {mixed_at} is {kinds[1]}, the rows before it are "
            f"{kinds[0]}; bring them to one kind, or split them into two sets"
        )
    return concatenate_datasets(parts), problems


def _bounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row, unless it is longer than any model reads: tokenising it would take minutes, for nothing."""
    size = 0
    for value in row.values():
        parts = [value] if isinstance(value, str) else [str(m.get("content") or "") for m in value or ()]
        size += sum(map(len, parts))
    if size > LONGEST:
        raise RowError(
            "too-long", f"it has {size:,} characters, and at most {LONGEST:,} are read; split it, or leave it out"
        )
    return row


def layout(names: Sequence[str], columns: Mapping[str, str], where: str, rows: Rows = "pairs") -> dict[str, str]:
    """Our names of the text columns to theirs; of `pairs` and `completions` the prompt may be missing.

    Raises:
        DataError: If the columns fit none of the layouts.
    """
    names = [name for name in names if name != ROW]
    for ours, theirs in columns.items():
        if ours not in ALIASES[rows][0]:
            *others, last = ALIASES[rows][0]
            expected = f"{', '.join(others)} or {last}" if others else last
            raise DataError(f"{where}: columns.{ours}: unknown; expected {expected}")
        if theirs not in names:
            raise DataError(f"{where}: columns.{ours}: no column {theirs!r}; there are {', '.join(names)}")
    for alias in ALIASES[rows]:
        mapping = {**alias, **columns}
        if all(theirs in names for theirs in mapping.values()):
            twice = [theirs for theirs in mapping.values() if list(mapping.values()).count(theirs) > 1]
            if twice:
                raise DataError(
                    f"{where}: columns: {twice[0]!r} is named twice; give each of {', '.join(ALIASES[rows][0])} its own"
                )
            return mapping
    if rows == "pairs":
        raise DataError(
            f"{where}: no preference columns; expected prompt, chosen, rejected (or question, response_j, response_k), "
            f"got {', '.join(names)}; map them with `columns: {{prompt: ..., chosen: ..., rejected: ...}}`"
        )
    needed = list(ALIASES[rows][0])
    raise DataError(
        f"{where}: no columns of {rows}; expected {', '.join(needed)}, got {', '.join(names)}; map them with "
        f"`columns: {{{', '.join(f'{name}: ...' for name in needed)}}}`"
    )


def _slice(raw: Dataset, start: int) -> list[Any]:
    """Rows as Python objects; None for one whose text is not UTF-8, which a Parquet file can hold."""
    part = raw.select(range(start, min(start + SLICE, len(raw))))
    try:
        return part.to_list()
    except UnicodeDecodeError:
        return [_or_none(part, index) for index in range(len(part))]


def _or_none(part: Dataset, index: int) -> dict[str, Any] | None:
    try:
        return part[index]
    except UnicodeDecodeError:
        return None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError("wrong-type", f"{name} is not a text, or empty")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RowError("wrong-type", f"{name} is not a finite number")
    return float(value)
