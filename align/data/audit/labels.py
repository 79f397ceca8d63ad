"""Audits rows with labels: how many there are of each, what they weigh, and answers that have both."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, UInt64

from align.data.prompts import prompt_of
from align.data.rows.normalise import SLICE
from align.findings import Finding
from align.losses.unpaired import class_weights

from .duplicates import at, row_digest

BALANCED = (1.0, 4 / 3)
"""Between these λ_D n_D / (λ_U n_U) should be: KTO, eq. 8."""
ROUNDING = 0.005


def inspect_labels(
    sets: Mapping[str, Dataset], *, weights: tuple[float, float] | None, weighs: bool = True
) -> list[Finding]:
    """What labels of a run say: a missing label, unequal weights, answers with both labels, or trained on and evaluated.

    Source: Ethayarajh et al. 2024 (arXiv:2402.01306), eq. 8, for the weights.

    Args:
        sets: Normalised rows of prompt, completion and label by name, the training set first.
        weights: λ_D and λ_U, or None if they are chosen by the data.
        weighs: Whether the loss has weights at all.
    """
    train, *evals = sets
    found = [*label_balance(sets[train]["label"], train, weights, weighs)]
    keys = {name: _keys(dataset) for name, dataset in sets.items()}
    for name, dataset in sets.items():
        both = _with_both(keys[name], np.array(dataset["label"], dtype=bool))
        if both.any():
            message = f"{both.sum()} of {len(both)} rows are an answer that has both labels, to the same prompt"
            remedy = "keep one label where one is meant"
            found.append(Finding("warning", "both-labels", name, message, remedy, at(both, range(1, len(both) + 1))))
    for name in evals:
        known = np.isin(keys[name], keys[train])
        if known.any():
            message = f"{known.sum()} of {len(known)} answers are also in {train}: its figures say how well they are remembered"
            rows = at(known, range(1, len(known) + 1))
            found.append(
                Finding("warning", "evaluated-on-training-data", name, message, "evaluate on others too", rows)
            )
    return found


def label_balance(
    labels: Sequence[bool], where: str, weights: tuple[float, float] | None, weighs: bool
) -> Iterator[Finding]:
    """How many there are of each label, and what they weigh in all; arguments are those of `inspect_labels`."""
    good = sum(labels)
    bad = len(labels) - good
    told = f"{good} rows are labelled true and {bad} false"
    if not good or not bad:
        level = "error" if weights is None else "warning"
        missing = "false" if good else "true"
        remedy = f"add rows labelled {missing}, " + (
            "or give the weights yourself" if weights is None else "or train on completions with `method: sft`"
        )
        yield Finding(level, "one-label", where, f"{told}: there is nothing to tell apart", remedy)
        return
    if not weighs:
        yield Finding("note", "label-balance", where, f"{told}; every row weighs the same", "nothing to do")
        return
    suggested = class_weights(good, bad)
    if weights is None:
        message = f"{told}: they weigh {suggested[0]:.4g} and {suggested[1]:.4g}, so that both count the same"
        yield Finding("note", "label-balance", where, message, "nothing to do")
        return
    ratio = weights[0] * good / (weights[1] * bad)
    low, high = BALANCED[0] - ROUNDING, BALANCED[1] + ROUNDING
    message = (
        f"{told}, with weights {weights[0]:g} and {weights[1]:g}: in all the true ones count {ratio:.3g} times as much"
    )
    if low <= ratio <= high:
        yield Finding("note", "label-balance", where, message, "nothing to do")
        return
    name, value = ("desirable", suggested[0]) if suggested[0] > 1 else ("undesirable", suggested[1])
    remedy = f"KTO asks for 1 to 4/3 times: set train.class_weights=data, or train.{name}_weight={value:.4g}"
    if weights != (1.0, 1.0):
        remedy = "KTO asks for 1 to 4/3 times: leave both weights out and set train.class_weights=data"
    yield Finding("warning", "label-balance", where, message, remedy)


def _keys(dataset: Dataset) -> UInt64[np.ndarray, " rows"]:
    """A digest of the prompt and the answer of each row."""
    found: list[int] = []
    for start in range(0, len(dataset), SLICE):
        rows: list[dict[str, Any]] = dataset.select(range(start, min(start + SLICE, len(dataset)))).to_list()
        found += [row_digest(prompt_of(row), row["completion"], "")[1] for row in rows]
    return np.array(found, dtype=np.uint64)


def _with_both(keys: UInt64[np.ndarray, " rows"], desirable: Bool[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    return np.isin(keys, np.intersect1d(keys[desirable], keys[~desirable]))
