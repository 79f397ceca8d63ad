"""Puts answers of several files to the same prompts into one row each, for scorers that compare them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.data.loading import DataSource, read
from align.data.rows.messages import RowError
from align.data.rows.scored import completions_of, prompt_of
from align.errors import DataError
from align.findings import printable
from align.rewards.texts import CALLS, CONVERSATIONS

JUDGES = "judges"
GOLD = "gold"


def together(files: Sequence[Path], *, gold: str | None = None) -> list[dict[str, Any]]:
    """The rows of several files of answers to the same prompts, with all answers of a prompt in one row.

    Args:
        files: In each the same prompts in the same order.
        gold: A column of the rows, whose text is put after the answers.

    Returns:
        Rows with the columns of the first file, and `sources`: for each answer the name of its file, or `gold`. One file
        alone keeps the sources that it has, and its scores.

    Raises:
        DataError: If a file cannot be read, has rows without answers, or other prompts than the first; or has scores, which
            those of other answers would not stand beside.
    """
    twice = {str(path) for path in files if [one.resolve() for one in files].count(path.resolve()) > 1}
    if twice:
        raise DataError(f"{', '.join(sorted(twice))}: is given twice; name each file of answers once")
    every = [_rows(path) for path in files]
    scored = [path for path, rows in zip(files, every, strict=True) if any(row.get("rewards") for row in rows)]
    if scored and (len(files) > 1 or gold is not None):
        raise DataError(
            f"{scored[0]}: has scores, which answers that are put beside its own would lack; put the files of answers together "
            "first, and score them then"
        )
    made: list[dict[str, Any]] = []
    for index, first in enumerate(every[0]):
        alone = len(files) == 1 and gold is None
        row = {name: value for name, value in first.items() if alone or name not in (CONVERSATIONS, CALLS)}
        row.pop("finished", None)
        completions, sources = [], []
        for path, rows in zip(files, every, strict=True):
            if len(rows) != len(every[0]) or prompt_of(rows[index]) != prompt_of(first):
                raise DataError(
                    f"{path}: other prompts than in {files[0]} (first: row {index + 1}); score them by themselves"
                )
            given = completions_of(rows[index])
            completions += given
            known = first.get("sources") if len(files) == 1 else None
            sources += known if isinstance(known, list) and len(known) == len(given) else [path.stem] * len(given)
        if gold is not None:
            completions.append(_gold(first, gold, index))
            sources.append(GOLD)
        made.append(row | {"completions": completions, "sources": sources})
    return made


def _gold(row: Mapping[str, Any], column: str, index: int) -> Any:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"row {index + 1}: no text in the column {column!r}, whose answers are gold")
    return text if isinstance(prompt_of(row), str) else [{"role": "assistant", "content": text}]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = read(DataSource(str(path))).to_list()
    except Exception as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {printable(str(error), 500)}") from error
    problems = []
    for number, row in enumerate(rows, start=1):
        try:
            completions_of(row)
        except RowError as error:
            problems.append(f"row {number}: {printable(str(error), 200)}")
    if problems:
        raise DataError(
            f"{path}: {len(problems)} of {len(rows)} rows hold no answers:\n  " + "\n  ".join(problems[:10])
        )
    return rows
