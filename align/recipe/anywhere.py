"""Reads a recipe made for a GPU on a machine that has none, so that it can be checked and compared there."""

from collections.abc import Mapping
from typing import Any

from transformers.utils import is_torch_bf16_gpu_available, is_torch_tf32_available


def set_aside(train: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of a `train` section that transformers refuses on this machine for want of a GPU that has them."""
    if train.get("use_cpu") is True:
        return ()
    found = []
    if not is_torch_bf16_gpu_available():
        as_by_default = train.get("bf16") is None and not train.get("fp16")  # which is bf16 in TRL
        found += ["bf16"] * (train.get("bf16") is True or as_by_default)
        found += ["bf16_full_eval"] * (train.get("bf16_full_eval") is True)
    if train.get("tf32") is True and not is_torch_tf32_available():
        found.append("tf32")
    return tuple(found)
