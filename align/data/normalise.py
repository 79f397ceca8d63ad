"""Preference rows in the layouts people have, normalised to TRL's explicit format.

| layout | read as |
|---|---|
| prompt, chosen, rejected: strings | as it is |
| prompt, chosen, rejected: messages | as it is |
| chosen, rejected: messages | the common beginning is the prompt |
| chosen, rejected: strings | the common beginning is the prompt: up to the last "Assistant:" in it, else whole words |
| prompt: string; chosen, rejected: full conversations | the prompt is the conversation without its last answer |
| prompt: string; chosen, rejected: assistant messages | the prompt becomes one user message |
| question, response_j, response_k | response_j is preferred |
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, concatenate_datasets

REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
ALIASES = (
    {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    {"chosen": "chosen", "rejected": "rejected"},
    {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
)
LAST_TURN = "\n\nAssistant:"
SHOWN = 10
SLICE = 10_000  # rows that are Python objects at a time


class DataError(ValueError):
    """Data that cannot be trained on as it is. The message names the source, the rows and the reasons."""


class _RowError(ValueError):
    """Why one row cannot be used."""


def normalise(
    raw: Dataset, *, columns: Mapping[str, str], where: str, unusable: str = "error", keep: Sequence[str] = ()
) -> tuple[Dataset, list[str]]:
    """Bring every row to `prompt`, `chosen`, `rejected`, all strings or all lists of messages.

    Args:
        raw: Rows in one of the layouts above.
        columns: Our name to theirs, where they differ.
        where: What to call the source in messages.
        unusable: "error" or "drop".
        keep: Further columns to carry over unchanged; numbers, and required.

    Returns:
        The normalised data and a line for each dropped row.

    Raises:
        DataError: If the columns fit no layout, rows cannot be used (and `unusable` is "error"), none is left, or
            plain and conversational rows are mixed.
    """
    mapping = _layout(raw.column_names, columns, where)
    missing = [name for name in keep if name not in raw.column_names]
    if missing:
        raise DataError(f"{where}: missing column {', '.join(missing)}, which ref.kind=cached needs")
    parts: list[Dataset] = []
    problems: list[str] = []
    usable, plain, mixed_at = 0, None, None
    for start in range(0, len(raw), SLICE):
        rows = []
        for number, row in enumerate(raw.select(range(start, min(start + SLICE, len(raw)))).to_list(), start=start + 1):
            try:
                rows.append(_row(row, mapping) | {name: _number(row[name], name) for name in keep})
            except _RowError as error:
                problems.append(f"row {number}: {error}")
                continue
            usable += 1
            plain = isinstance(rows[-1]["prompt"], str) if plain is None else plain
            if mixed_at is None and isinstance(rows[-1]["prompt"], str) != plain:
                mixed_at = usable
        if rows and mixed_at is None:
            parts.append(Dataset.from_list(rows))
    if problems and (unusable == "error" or not usable):
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "\n  ".join(problems[:SHOWN])
        raise DataError(
            f"{where}: {len(problems)} of {len(raw)} rows cannot be used:\n  {listed}{more}\n"
            "  mend them, or set data.unusable=drop to train without them"
        )
    if not usable:
        raise DataError(f"{where}: no rows")
    if mixed_at is not None:
        raise DataError(f"{where}: plain strings and chat messages are mixed, first at usable row {mixed_at}")
    return concatenate_datasets(parts), problems


def _layout(names: Sequence[str], columns: Mapping[str, str], where: str) -> dict[str, str]:
    for ours, theirs in columns.items():
        if ours not in ("prompt", "chosen", "rejected"):
            raise DataError(f"{where}: columns.{ours}: unknown; expected prompt, chosen or rejected")
        if theirs not in names:
            raise DataError(f"{where}: columns.{ours}: no column {theirs!r}; there are {', '.join(names)}")
    for alias in ALIASES:
        mapping = {**alias, **columns}
        if all(theirs in names for theirs in mapping.values()):
            return mapping
    raise DataError(
        f"{where}: no preference columns; expected prompt, chosen, rejected (or question, response_j, response_k), "
        f"got {', '.join(names)}; map them with `columns: {{prompt: ..., chosen: ..., rejected: ...}}`"
    )


def _row(row: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    chosen: Any = _side(row[mapping["chosen"]], "chosen")
    rejected: Any = _side(row[mapping["rejected"]], "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise _RowError("chosen and rejected are of different kinds (text and messages)")
    prompt = row[mapping["prompt"]] if "prompt" in mapping else None
    if "prompt" in mapping and not prompt:
        raise _RowError("the prompt is empty")
    read: Any = _plain if isinstance(chosen, str) else _conversation
    result = read(prompt, chosen, rejected)
    if result["chosen"] == result["rejected"]:
        raise _RowError("chosen and rejected are identical")
    return result


def _side(value: Any, side: str) -> Any:
    if value is None:
        raise _RowError(f"{side} is missing")
    if isinstance(value, str):
        if not value.strip():
            raise _RowError(f"{side} is empty")
        return value
    return _messages(value, side)


def _messages(value: Any, side: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise _RowError(f"{side} is neither text nor a list of messages")
    messages = []
    for message in value:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise _RowError(f"{side} holds something that is not a message with role and content")
        if not isinstance(message.get("content"), str):
            raise _RowError(f"{side}: a {message['role']} message has no text content")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def _plain(prompt: Any, chosen: str, rejected: str) -> dict[str, Any]:
    if prompt is None:
        if chosen == rejected:
            raise _RowError("chosen and rejected are identical")
        common = _common_beginning(chosen, rejected)
        if not common.strip():
            raise _RowError("no prompt column, and chosen and rejected have no common beginning")
        prompt, chosen, rejected = common, chosen[len(common) :], rejected[len(common) :]
        if not chosen.strip() or not rejected.strip():
            raise _RowError("an answer is empty once the common beginning is taken as the prompt")
    if not isinstance(prompt, str):
        raise _RowError("the answers are text but the prompt is not")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _common_beginning(chosen: str, rejected: str) -> str:
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    common = chosen[: min(len(chosen), len(rejected)) if same is None else same]
    turn = common.rfind(LAST_TURN)
    if turn >= 0:  # the layout of Anthropic's HH: answers may well begin with the same words
        return common[: turn + len(LAST_TURN)]
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


def _conversation(prompt: Any, chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> dict[str, Any]:
    for side, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1]["role"] != "assistant":
            raise _RowError(f"{side} ends with a {messages[-1]['role']} message, not the assistant's")
        if not messages[-1]["content"].strip():
            raise _RowError(f"{side} is empty")
    if prompt is not None and not isinstance(prompt, str):
        prompt = _messages(prompt, "prompt")
    if len(chosen) > 1 or len(rejected) > 1:
        context = chosen[:-1]
        if context != rejected[:-1]:
            raise _RowError("chosen and rejected differ before the last answer")
        stated = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if stated is not None and context[-len(stated) :] != stated:
            raise _RowError("the prompt is not what chosen and rejected start with")
        prompt, chosen, rejected = context, chosen[-1:], rejected[-1:]
    elif isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if prompt is None:
        raise _RowError("no prompt column, and the conversations hold only an answer")
    if prompt[-1]["role"] == "assistant":
        raise _RowError("the prompt ends with an assistant message")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _RowError(f"{name} is not a finite number")
    return float(value)
