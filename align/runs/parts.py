"""Reads what a trainer wrote into a checkpoint beside the Trainer's own files."""

from pathlib import Path
from typing import Any

import torch

from align.errors import RunError


def read_part(path: Path, told: str) -> Any:
    """A part that a trainer wrote beside the Trainer's own, on the CPU.

    Args:
        path: The file, in the checkpoint.
        told: Who then did not write the checkpoint.

    Raises:
        RunError: If it is not there: another trainer wrote the checkpoint.
    """
    if not path.is_file():
        raise RunError(f"{path.parent}: has no {path.name}, so {told}; start anew")
    return torch.load(path, map_location="cpu", weights_only=True)
