"""Brings rows into TRL's explicit formats.

`pairs`: `prompt`, `chosen`, `rejected`. `completions`: `prompt`, `completion`. `labels`: these and `label`. `prompts`: `prompt` and every other column as it
is, for reward functions. `align.data.rows.mapping` says which columns are read as what. A column `system` becomes a message;
`tools` and `chat_template_kwargs` stay columns, which TRL hands to the chat template.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from datasets import Dataset, Features, Json, concatenate_datasets
from datasets.arrow_writer import ArrowWriter

from align.errors import DataError
from align.findings import Finding

from .labels import planned_labels
from .layouts import LeftOut, Reading
from .mapping import REF_COLUMNS, ROW, Plan, Rows, planned
from .messages import PLAIN_KEYS, RENDERED, SIDES, RowError, as_messages, template_arguments, with_system, without_keys
from .normal_form import is_blank

__all__ = ["REF_COLUMNS", "ROW", "SLICE", "Rows", "normalise"]

SHOWN = 10
LONGEST = 4_000_000  # characters of a row, about a million tokens
SLICE = 10_000  # rows that are Python objects at a time


OR_DROP = ", or set data.unusable=drop to train without them"


def normalise(
    raw: Dataset,
    *,
    columns: Mapping[str, str] | None = None,
    where: str,
    unusable: str = "error",
    keep: Sequence[str] = (),
    texts: Sequence[str] = (),
    rows: Rows = "pairs",
    reading: Reading | None = None,
    told: list[Finding] | None = None,
    scratch: Path | None = None,
) -> tuple[Dataset, list[str]]:
    """Bring every row to one format, its texts all strings or all lists of messages.

    Args:
        raw: Rows in one of the layouts above.
        columns: Our name to theirs, where they differ; short for a `reading` that says nothing else.
        where: What to call the source in messages.
        unusable: "error" or "drop".
        keep: Further columns to carry over unchanged; numbers, and required. `columns` may name them too.
        texts: Likewise columns of texts that are not empty.
        rows: What a row is; of `prompts` all columns are carried over.
        reading: What the source says of its columns.
        told: What is worth knowing of how it was read is added to it.
        scratch: A folder for the normalised rows, which are then not held in memory.

    Returns:
        The normalised data and a line for each dropped row.

    Raises:
        DataError: If the columns fit no layout, one that changes what others mean would be dropped, rows cannot be used
            (and `unusable` is "error"), none is left, or plain and conversational rows are mixed.
    """
    reading = Reading(columns or {}) if reading is None else reading
    plan = (planned_labels if rows == "labels" else planned)(
        raw, reading, where=where, keep=keep, texts=texts, rows=rows
    )
    parts: list[Dataset] = []
    problems: list[str] = []
    earlier: list[int] = []
    left_out: dict[str, list[int]] = defaultdict(list)
    usable, plain, mixed_at, before = 0, None, None, None
    nested = set(plan.template)
    for start in range(0, len(raw), SLICE):
        part: list[dict[str, Any]] = []
        for number, row in enumerate(_slice(raw, start), start=start + 1):
            try:
                made = [_whole(_bounded(each), row, plan, reading, texts) for each in plan.read(row, before)]
            except RowError as error:
                problems.append(f"row {number}: {error}")
                continue
            except LeftOut as reason:
                left_out[str(reason)].append(number)
                continue
            finally:
                before = row
            if rows in ("completions", "labels") and any(
                m["role"] == "assistant" for each in made for m in _messages(each)
            ):
                earlier.append(number)
            part += made
            usable += len(made)
            for each in made:
                plain = isinstance(each["prompt"], str) if plain is None else plain
                if mixed_at is None and isinstance(each["prompt"], str) != plain:
                    mixed_at = number
        if part and mixed_at is None:
            nested |= _nested(part)
            parts.append(_on_disk(table_of(part, nested), scratch))
    if problems and (unusable == "error" or not usable):
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n  ".join(problems[:SHOWN])
        raise DataError(
            f"{where}: {len(problems)} of {len(raw)} rows cannot be used:\n  {listed}{more}\n"
            f"  mend them{' (`alignkit data fix` mends or drops them in a copy)' * (rows == 'pairs')}{OR_DROP}"
        )
    if not usable:
        why = f": {next(iter(left_out))} in every row" if left_out else "; name a file or a split that has some"
        raise DataError(f"{where}: no rows{why}")
    if mixed_at is not None:
        kinds = ("plain text", "chat messages") if plain else ("chat messages", "plain text")
        raise DataError(
            f"{where}: plain strings and chat messages are mixed: row {mixed_at} is {kinds[1]}, the rows before it are "
            f"{kinds[0]}; bring them to one kind, or split them into two sets"
        )
    if told is not None:
        told += [*plan.told, *_left_out(left_out, len(raw), where)]
        if earlier and reading.layout is None:
            message = f"{len(earlier)} of {len(raw)} conversations hold earlier answers of the assistant, which are not trained on"
            told.append(
                Finding("note", "earlier-answers", where, message, "`layout: turns` trains on each", tuple(earlier))
            )
    return concatenate_datasets([_as_json(part, nested, scratch) for part in parts]), problems


def _whole(
    made: dict[str, Any], row: Mapping[str, Any], plan: Plan, reading: Reading, texts: Sequence[str]
) -> dict[str, Any]:
    """A row of ours with everything that the source's row says besides."""
    kept = {ours: (_text if ours in texts else _number)(row[name], name) for ours, name in plan.kept.items()}
    if plan.system is not None:
        made = with_system(made, row[plan.system])
    elif reading.as_messages:
        made = as_messages(made)
    made = without_keys(made, [name for name in reading.ignore if name in RENDERED])
    given = {name: row[name] for name in plan.template}
    further = template_arguments(given, is_text=isinstance(made["prompt"], str))
    return made | further | {ours: row[name] for ours, name in plan.others.items()} | kept


def _bounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row, unless it is longer than any model reads: tokenising it would take minutes, for nothing."""
    size = 0
    for value in row.values():
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, list):
            for message in value:
                size += len(str(message.get("content") or ""))
    if size > LONGEST:
        raise RowError(
            "too-long", f"it has {size:,} characters, and at most {LONGEST:,} are read; split it, or leave it out"
        )
    return row


def _messages(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return () if isinstance(row["prompt"], str) else row["prompt"]


def _left_out(reasons: Mapping[str, Sequence[int]], total: int, where: str) -> Iterator[Finding]:
    for reason, numbers in reasons.items():
        message = f"{len(numbers)} of {total} rows are left out: {reason}"
        yield Finding("note", "left-out", where, message, "nothing to do", tuple(numbers))


def _nested(part: Sequence[Mapping[str, Any]]) -> set[str]:
    """Columns of messages that hold more than role and content: Arrow would fill in keys that a message does not have."""
    names = [name for name, value in part[0].items() if isinstance(value, list)]
    return {
        name for name in names if name in ("prompt", *SIDES)
        and any(set(message) != PLAIN_KEYS for row in part for message in row[name])
    }  # fmt: skip


def table_of(part: Sequence[Mapping[str, Any]], nested: set[str]) -> Dataset:
    """Rows as a data set, with the columns as JSON that are `nested`."""
    plain = [{name: value for name, value in row.items() if name not in nested} for row in part]
    held = {name: [row[name] for row in part] for name in part[0] if name in nested}
    tables = [Dataset.from_list(plain)] if plain[0] else []
    if held:
        tables.append(Dataset.from_dict(held, features=Features(dict.fromkeys(held, Json()))))
    return concatenate_datasets(tables, axis=1) if len(tables) > 1 else tables[0]


def _as_json(part: Dataset, nested: set[str], scratch: Path | None) -> Dataset:
    """The part with the columns as JSON that are so in any part."""
    late = [name for name in nested if not isinstance(part.features[name], Json)]
    if not late:
        return part
    return _on_disk(table_of(part.to_list(), nested), scratch)


def _on_disk(part: Dataset, scratch: Path | None) -> Dataset:
    """Rows from a file of that folder, if there is one."""
    if scratch is None:
        return part
    scratch.mkdir(parents=True, exist_ok=True)
    path = str(scratch / f"{uuid4().hex}.arrow")
    with ArrowWriter(path=path, features=part.features) as writer:
        writer.write_table(part.data.table)
        writer.finalize()
    return Dataset.from_file(path)


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
    if not isinstance(value, str) or is_blank(value):
        raise RowError("wrong-type", f"{name} is not a text, or empty")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RowError("wrong-type", f"{name} is not a finite number")
    return float(value)
