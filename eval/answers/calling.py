"""Has policies that call tools call them in an evaluation, too."""

from collections.abc import Mapping, Sequence
from typing import Any

from align.data.prompts import Prompt, prompt_of
from align.errors import RunError
from align.tools import Calling, calling_of


def prompts_of(calling: Calling | None, rows: Sequence[Mapping[str, Any]]) -> list[Prompt]:
    """What is asked for rows, with the schemas of what may be called."""
    return [prompt_of(row) for row in rows] if calling is None else [calling.prompt(row) for row in rows]


def calling_of_all(subjects: Sequence[Any], columns: Sequence[str]) -> Calling | None:
    """What policies call that are evaluated together, and their reference with them.

    Raises:
        RunError: If they call different things: answers of one kind would be held against answers of another.
    """
    first, *others = subjects
    found = calling_of(first.recipe, first.tokenizer, columns)
    for other in others:
        theirs = calling_of(other.recipe, other.tokenizer, columns)
        if (theirs and theirs.digest) != (found and found.digest):
            raise RunError(
                f"{other.name}: calls other tools than {first.name} (tools, environments, their options, files or code, or "
                "train.max_tool_calling_iterations differ); evaluate each by itself"
            )
    return found
