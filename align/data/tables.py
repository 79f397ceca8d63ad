"""Reads the training data as Arrow tables, a slice at a time: few rows are Python objects together."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Int

SLICE = 10_000
"""Rows of a slice."""
TOKENIZED = 1000  # rows of one whose tokens are made for it


def slices(data: Dataset, columns: Sequence[str]) -> Iterator[Any]:
    """These columns of the data, as tables whose columns are found by name; of data tokenized as they are read, too."""
    if set(columns) <= set(data.column_names):
        yield from data.select_columns(list(columns)).with_format("arrow").iter(batch_size=SLICE)
        return
    made: Any = data.iter(batch_size=TOKENIZED)
    for part in made:
        yield pa.table({name: part[name] for name in columns})


def counts(column: Any) -> Int[np.ndarray, " rows"]:
    """How many items each list of a column has."""
    return pc.call_function("list_value_length", [column]).to_numpy()
