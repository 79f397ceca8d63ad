"""Gives data sets that trainers get from Python the meaning that a recipe gives the same file."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from datasets import Dataset

from align.errors import DataError

from .columns import SYSTEM, TEMPLATE
from .mapping import ALIASES, READ, Rows, layout
from .messages import SIDES, RowError, with_system

LOOKED_AT = 100  # rows; a set is of one layout
READY = frozenset(("input_ids", "prompt_ids", "chosen_ids", "text"))
"""Columns of data that are tokenized, or texts to go on with."""


def explicit(dataset: Any, rows: Rows, *, where: str) -> Any:
    """A data set in TRL's explicit format; it is handed back as it is if it has that already. Other columns stay.

    Args:
        dataset: Map-style or streamed, or several by name.
        rows: What a row is.
        where: What to call the set.

    Raises:
        DataError: Naming the row that cannot be read, for a streamed set when it comes; or columns that online training does
            not render.
    """
    if isinstance(dataset, dict):
        return {name: explicit(each, rows, where=f"{where}: {name}") for name, each in dataset.items()}
    first = list(islice(iter(dataset), LOOKED_AT)) if dataset is not None else []
    names = list(first[0]) if first else []
    sides = [name for name in ALIASES[rows][0] if name in SIDES]
    unread = [name for name in TEMPLATE if rows == "prompts" and any(row.get(name) for row in first)]
    if unread:
        raise DataError(
            f"{where}: {' and '.join(unread)}: prompts are rendered without what each row has of them; give all rows the same by "
            "`chat_template_kwargs` of args (and tools by the trainer's own `tools`), and remove the columns"
        )
    if dataset is None or not first or READY & set(names) or all(_is_explicit(row, sides) for row in first):
        return dataset
    mapping = layout(names, {}, where, rows)
    system = next((name for name in SYSTEM if name in names), None)

    def read(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        try:
            made = READ[rows](row, mapping)
            return with_system(made, row[system]) if system else made
        except RowError as error:
            raise DataError(f"{where}: row {index + 1}: {error}") from None

    settings: dict[str, Any] = {"desc": f"Reading {where}"} if isinstance(dataset, Dataset) else {}
    gone = [name for name in names if name == system or name in mapping.values()]
    return dataset.map(read, with_indices=True, remove_columns=gone, **settings)


def _is_explicit(row: Mapping[str, Any], sides: Sequence[str]) -> bool:
    if not all(name in row for name in ("prompt", *sides)) or any(name in row for name in SYSTEM):
        return False
    texts = [row["prompt"], *(row[side] for side in sides)]
    if all(isinstance(text, str) for text in texts):
        return True
    roles = [
        [m.get("role") if isinstance(m, Mapping) else None for m in t] if isinstance(t, list) else [] for t in texts
    ]
    return (
        all(roles) and not any(None in each for each in roles) and all(answer[0] == "assistant" for answer in roles[1:])
    )
