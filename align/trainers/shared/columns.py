"""Carries data columns that a loss reads past TRL's collators, which drop them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset

from align.configs import PreferenceConfig
from align.configs.common import MethodConfig
from align.data.rows.tables import SLICE, slices
from align.errors import DataError
from align.losses.objectives import COLUMNS

from .scored import COLUMN

ANY = (-math.inf, math.inf)


def sets_by_name(train: Any, evaluation: Any) -> dict[str, Any]:
    """What a trainer was given as training data and as one evaluation set or several."""
    named = evaluation if isinstance(evaluation, Mapping) else {"eval_dataset": evaluation}
    return {"train_dataset": train, **named}


def refuse_empty(train: Any, evaluation: Any, *, where: str) -> None:
    """Refuse data sets without a row, from which TRL's constructors would read the first.

    Raises:
        DataError: With the data set.
    """
    for name, data in sets_by_name(train, evaluation).items():
        if isinstance(data, Dataset) and not len(data):
            raise DataError(f"{where}: {name}: there is no row")


def check_columns(args: PreferenceConfig, train: Any, evaluation: Any, *, where: str) -> None:
    """Refuse data sets that lack a column which the loss reads, or have a value in it that is no number of its range.

    Rows of streamed sets are looked at as they come.

    Raises:
        ValueError: With the data set, the column, what needs it and the row, counted from 1.
    """
    if not args.columns():
        return
    for name, data in sets_by_name(train, evaluation).items():
        present = getattr(data, "column_names", None)
        if present is None:
            continue
        for column in args.columns():
            if column not in present:
                raise ValueError(
                    f"{where}: {name}: no column {column!r}, which {args.reader_of(column)} needs; "
                    f"there are {', '.join(present)}"
                )
        if isinstance(data, Dataset):
            for column, row, value in wrong_values(data, args.columns()):
                raise ValueError(f"{where}: {name}: row {row}: {_complaint(column, value)}")


def check_texts(args: MethodConfig, train: Any, *, where: str) -> None:
    """Refuse training data that lack a text which the method reads. Rows of streamed sets are looked at as they come.

    Raises:
        ValueError: With the column, and the row, counted from 1.
    """
    for column in args.text_columns() if getattr(train, "column_names", None) is not None else ():
        if column not in train.column_names:
            raise ValueError(f"{where}: train_dataset: no column {column!r}; there are {', '.join(train.column_names)}")
        for number, value in enumerate(train[column] if isinstance(train, Dataset) else (), start=1):
            if not isinstance(value, str) or not value:
                raise ValueError(f"{where}: train_dataset: row {number}: {column!r} must be a text, got {value!r}")


def image_columns(data: Any) -> list[str]:
    """Names of the columns of pictures that a data set has."""
    return [name for name in ("image", "images") if name in (getattr(data, "column_names", None) or ())]


def wrong_values(data: Dataset, columns: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
    """Column, row (counted from 1) and value wherever that is no number of the column's range."""
    for number, part in enumerate(slices(data, columns)):
        for column in columns:
            for index, value in enumerate(part[column].to_pylist()):
                if not fits(value, column):
                    yield column, number * SLICE + index + 1, value


def fits(value: Any, column: str) -> bool:
    """Whether a value is a finite number of the column's range."""
    low, high = COLUMNS.get(column, ANY)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and low <= value <= high


def _complaint(column: str, value: Any) -> str:
    low, high = COLUMNS.get(column, ANY)
    return f"column {column!r} must be a finite number in [{low:g}, {high:g}], got {value!r}"


def columns_of(batch: dict[str, torch.Tensor], names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The data columns of a batch by their own names, shape (rows,)."""
    return {name: batch[COLUMN + name] for name in names}


class WithColumns:
    """A collator that adds data columns to another's batches: float tensors of shape (rows,), named with a prefix.

    Args:
        collator: TRL's, or the user's own. It does not see the columns.
        columns: Names of the columns.

    Raises:
        ValueError: When called, if a row lacks a column or its value is no number of the column's range.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]], columns: tuple[str, ...]) -> None:
        self.collator, self.columns = collator, columns

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The other's batch and the columns."""
        batch = dict(self.collator([{k: v for k, v in row.items() if k not in self.columns} for row in examples]))
        for column in self.columns:
            values = [example.get(column) for example in examples]
            wrong = [value for value in values if not fits(value, column)]
            if wrong:
                raise ValueError(f"a row of the data: {_complaint(column, wrong[0])}")
            batch[COLUMN + column] = torch.tensor(values, dtype=torch.float32)
        return batch
