"""Reads the texts that rewards judge: answers and prompts, each a string or chat messages."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

Text = str | Sequence[dict[str, Any]]


def text_of(completion: Text) -> str:
    """An answer's text: itself, or the contents of its messages. What tools returned is not the answer's."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_content(message) for message in completion if message.get("role") != "tool")


def question_of(prompt: Text) -> str:
    """A prompt's text: itself, or its last message of the user (of anybody, if the user has none)."""
    if isinstance(prompt, str):
        return prompt
    asked = [message for message in prompt if message.get("role") == "user"] or list(prompt)
    return _content(asked[-1]) if asked else ""


def has_value(cell: Any) -> bool:
    """Whether a cell of a data column says anything: not None, not blank, not NaN or infinite."""
    if cell is None or (isinstance(cell, Real) and not math.isfinite(cell)):
        return False
    return not (isinstance(cell, str) and not cell.strip())


def needed(reward: str, column: str, values: Sequence[Any] | None, completions: Sequence[Any]) -> Sequence[Any]:
    """A column that a reward cannot do without.

    Raises:
        ValueError: If it is missing, or has another number of values than there are completions.
    """
    if values is None:
        raise ValueError(f"{reward}: needs `{column}`, which it was not given; add the column to the data")
    if len(values) != len(completions):
        raise ValueError(
            f"{reward}: `{column}` must have one value per completion ({len(completions)}), got {len(values)}"
        )
    return values


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if content is None:  # a message that only calls a tool
        return ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
