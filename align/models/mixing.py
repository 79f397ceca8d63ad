"""Holds several adapters on one base at once, each with a coefficient: ΔW(c) = Σ c_k ΔW_k, by PEFT's own scale of a layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from .loading import load_adapter


def put_on(base: PreTrainedModel | PeftModel, folders: Sequence[str | Path]) -> PeftModel:
    """A base with LoRA adapters, all on, all frozen and of coefficient 1; the base is there once.

    Raises:
        FileNotFoundError: If a folder holds no adapter.
        RunError: If one would run code, is damaged, or does not fit the model.
    """
    model: Any = base
    for number, folder in enumerate(folders):
        model = load_adapter(model, folder, name=name_of(number))
    model.base_model.set_adapter([name_of(number) for number in range(len(folders))], inference_mode=True)
    return model


def name_of(number: int) -> str:
    """What an adapter is called on the model."""
    return f"member-{number}"


def set_coefficients(model: PeftModel, coefficients: Sequence[float] | Tensor) -> None:
    """Give each adapter of `put_on` its coefficient; of a tensor, the model's output has the derivative by each."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for number, coefficient in enumerate(coefficients):
                module.set_scale(name_of(number), coefficient)  # pyright: ignore[reportArgumentType] - a tensor will do
