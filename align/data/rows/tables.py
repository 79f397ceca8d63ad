"""Reads the training data as Arrow tables, a slice at a time: few rows are Python objects together."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, List, Value
from jaxtyping import Int

from .messages import PLAIN_KEYS

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


def listed(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values of an Arrow column of lists one after another, and where each list begins and the last ends."""
    whole = column.combine_chunks() if hasattr(column, "chunks") else column
    offsets = whole.offsets.to_numpy()
    return whole.flatten().to_numpy(zero_copy_only=False), offsets - offsets[0]


def is_text(column: Any) -> bool:
    """Whether the values of a column are texts."""
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def only_texts(feature: Any) -> bool:
    """Whether a column's values are texts, or lists of messages that have a role and a content and no other part."""
    if isinstance(feature, Value):
        return bool(feature.dtype in ("string", "large_string"))
    return isinstance(feature, List) and not set(feature.feature) - PLAIN_KEYS  # others are kept as JSON


def messages(column: Any) -> tuple[Int[np.ndarray, " bounds"], Any, Any]:
    """Where each list of messages begins and the last one ends, and the roles and contents of all messages one after another."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    one_by_one = whole.flatten()
    roles, contents = (
        pc.call_function("struct_field", [one_by_one], pc.StructFieldOptions([name])) for name in ("role", "content")
    )
    return whole.offsets.to_numpy() - whole.offsets[0].as_py(), roles, contents


def joined(column: Any, bounds: Int[np.ndarray, " bounds"], between: str) -> Any:
    """The texts of each list as one text, given all of them one after another."""
    lists = pa.LargeListArray.from_arrays(pa.array(bounds, pa.int64()), column)
    return pc.call_function("binary_join", [lists, pa.scalar(between, column.type)])
