"""Reads the texts that rewards judge: answers and prompts, each a string or chat messages."""

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

Text = str | Sequence[dict[str, Any]]
CONVERSATIONS, CALLS = "conversations", "tool_calls"
"""Columns of a file of answers that call tools: each answer's messages as JSON in a text, and how many calls it makes."""
_WORD = re.compile(r"\w+")


def text_of(completion: Text) -> str:
    """An answer's text: itself, or the contents of its messages. What tools returned is not the answer's."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_content(message) for message in completion if message.get("role") != "tool")


def calls_of(completion: Text) -> int:
    """How many tools an answer calls, those among them that failed or that there was no room for; 0 for plain text."""
    messages = () if isinstance(completion, str) else completion
    return sum(len(message.get("tool_calls") or ()) for message in messages)


def found_by(completion: Text) -> list[str]:
    """What tools returned within an answer, in order."""
    messages = () if isinstance(completion, str) else completion
    return [_content(message) for message in messages if message.get("role") == "tool"]


def words_of(text: str) -> list[str]:
    """Words and numbers, in lower case."""
    return _WORD.findall(text.lower())


def stands_in(answer: str, text: str) -> bool:
    """Whether the answer's words stand in a text next to each other; an answer without words never does."""
    wanted, said = words_of(answer), words_of(text)
    return bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))


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
