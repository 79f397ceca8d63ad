"""Splits data by prompt, so that a prompt is on one side whatever the order, the process or the machine."""

import hashlib
import json
from typing import Any

from datasets import Dataset

from align.errors import DataError


def prompt_position(prompt: Any) -> float:
    """Where a prompt falls in [0, 1), from its sha256."""
    text = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56


def hold_out(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Split off about `share` of the prompts, with all their pairs; returns (rest, held out).

    Raises:
        DataError: If either side comes out empty.
    """
    held = [prompt_position(prompt) < share for prompt in dataset["prompt"]]
    if all(held) or not any(held):
        raise DataError(f"data.holdout: {share} of {len(dataset)} rows leaves one side empty; use another share")
    inside = [index for index, is_held in enumerate(held) if is_held]
    outside = [index for index, is_held in enumerate(held) if not is_held]
    return dataset.select(outside), dataset.select(inside)
