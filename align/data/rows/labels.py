"""Reads rows for training on labelled answers: those that have a label, and both answers of preference pairs."""

from collections.abc import Sequence
from dataclasses import replace

from datasets import Dataset

from align.findings import Finding

from .kinds import LABELS, labelled
from .layouts import LAYOUTS, Reading, known_layout
from .mapping import Plan, Rows, planned


def planned_labels(
    raw: Dataset, reading: Reading, *, where: str, keep: Sequence[str], texts: Sequence[str], rows: Rows = "labels"
) -> Plan:
    """`planned` of labels: where a source holds pairs, each gives two rows.

    Raises:
        DataError: As `planned` does.
    """
    if not speaks_of_pairs(raw.column_names, reading):
        return planned(raw, reading, where=where, keep=keep, texts=texts, rows=rows)
    made = planned(raw, reading, where=where, keep=keep, texts=texts, rows="pairs")
    message = "pairs: each gives two rows, its chosen answer labelled true and its rejected one false"
    told = [*made.told, Finding("note", "both-sides", where, message, "nothing to do")]
    return replace(made, read=lambda row, before: labelled(made.read(row, before)), told=told)


def speaks_of_pairs(names: Sequence[str], reading: Reading) -> bool:
    """Whether a source holds preference pairs, by its columns and by what is said of it."""
    if reading.prefer is not None or set(LABELS) & set(reading.columns):
        return True
    if reading.layout is not None:
        return LAYOUTS[reading.layout].rows == "pairs"
    if {"completion", "label"} & set(reading.columns) or {"completion", "label"} <= set(names):
        return False
    return set(LABELS) <= set(names) or bool(known_layout(names, "pairs"))
