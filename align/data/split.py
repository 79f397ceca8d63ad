"""Splits data by prompt, so that a prompt is on one side whatever the order, the process or the machine."""

import hashlib
import json
from typing import Any

from datasets import Dataset

from align.data.rows.normal_form import all_visible
from align.errors import DataError
from align.findings import Finding


def prompt_position(prompt: Any) -> float:
    """Where a prompt falls in [0, 1), from the sha256 of its visible text."""
    text = json.dumps(all_visible(prompt), sort_keys=True, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56


def hold_out(dataset: Dataset, holdout: int | float) -> tuple[Dataset, Dataset, Finding]:
    """Split off prompts with all their rows.

    Args:
        dataset: Normalised rows.
        holdout: About this share of the prompts if it is below 1, by where each falls; else exactly so many, those that
            fall lowest.

    Returns:
        The rest, what is held out, and how much that is.

    Raises:
        DataError: If either side comes out empty.
    """
    places = [prompt_position(prompt) for prompt in dataset["prompt"]]
    distinct = sorted(set(places))
    least = holdout if holdout < 1 else distinct[int(holdout)] if holdout < len(distinct) else 1.0
    inside = [index for index, place in enumerate(places) if place < least]
    outside = [index for index, place in enumerate(places) if place >= least]
    if not inside or not outside:
        other = "another share" if holdout < 1 else f"fewer than the {len(distinct)} different prompts"
        raise DataError(f"data.holdout: {holdout} of {len(dataset)} rows leaves one side empty; use {other}")
    prompts, share = sum(place < least for place in distinct), len(inside) / len(dataset)
    message = f"{len(inside)} of {len(dataset)} rows ({share:.0%}), {prompts} prompts, are held out"
    remedy = "nothing to do"
    if holdout < 1:
        message += f" for a share of {holdout:g}, as their hashes fall"
        remedy = f"data.holdout={max(round(holdout * len(distinct)), 1)} holds out exactly so many prompts"
    found = Finding("note", "holdout", "data.holdout", message, remedy)
    return dataset.select(outside), dataset.select(inside), found
