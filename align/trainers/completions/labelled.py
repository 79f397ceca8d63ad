"""Rows of single answers with labels, as KTO and BCO learn from them: both labels of pairs, and each answer's mismatched one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from align.errors import DataError

LABELS = {"chosen": True, "rejected": False}
"""How TRL names the two labels in metrics."""
MISMATCHED = "KL_completion_ids"
"""TRL's column of an answer to another prompt."""


def both_labels(dataset: Any) -> Any:
    """Pairs as their two answers, labelled, one after the other; other columns stay at both."""
    names = next(iter(dataset))
    return dataset.map(_both, batched=True, remove_columns=[name for name in ("prompt", *LABELS) if name in names])


def _both(batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    both = zip(*(batch[side] for side in LABELS), strict=True)
    made = {"completion": [answer for pair in both for answer in pair]}
    made["label"] = [label for _ in batch["chosen"] for label in LABELS.values()]
    rest = {name: values for name, values in batch.items() if name not in LABELS}
    return {name: [value for value in values for _ in LABELS] for name, values in rest.items()} | made


def check_labels(dataset: Any, first: Mapping[str, Any], where: str) -> None:
    """Refuse rows without labels, or with one that is neither true nor false; of streamed rows it is seen that there are labels.

    Raises:
        DataError: If there are no labels.
        ValueError: Naming the row.
    """
    if "chosen" in first:
        return
    if "label" not in first:
        raise DataError(
            f"{where}: no column 'label'; there are {', '.join(first)}. Give each completion one, true or false, or pairs of "
            "chosen and rejected"
        )
    if not isinstance(dataset, Dataset):
        return
    labels = dataset["label"]
    wrong = [n for n, label in enumerate(labels, start=1) if label not in (True, False)]
    if wrong:
        raise ValueError(f"{where}: row {wrong[0]}: label must be true or false, got {labels[wrong[0] - 1]!r}")


def with_mismatched(rows: Dataset, step: int) -> Dataset:
    """Tokenized rows, each with the completion of the row before it in its step as MISMATCHED, the first with the last's.

    A step of one row, which only the last can be, has the completion of the row before it.

    Args:
        rows: With `completion_ids`.
        step: Rows of a step.
    """
    at = np.arange(len(rows))
    before = np.where(at % step == 0, np.minimum(at + step, len(at)) - 1, at - 1)
    if len(at) > 1 and len(at) % step == 1:
        before[-1] = len(at) - 2
    other: Any = rows.select_columns("completion_ids").select(before).rename_column("completion_ids", MISMATCHED)
    once: Any = rows.remove_columns(
        [name for name in rows.column_names if name == MISMATCHED]
    )  # of a set prepared before
    return concatenate_datasets([once, other], axis=1)
