"""Pairs a model with what it was loaded from, and turns its adapters off where it is the reference."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from trl import ModelConfig

Model = PreTrainedModel | PeftModel


@dataclass(frozen=True)
class Use:
    """A model, and what it was loaded from. Called, a context manager that gives the model to call."""

    model: Model
    settings: ModelConfig
    adapter: str | None = None
    adapters_off: bool = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Model]:
        """The model, for the block only: its adapters may be off there."""
        if self.adapters_off and isinstance(self.model, PeftModel):
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model


@contextlib.contextmanager
def head_in_one_product(model: Any) -> Iterator[None]:
    """Within it, a model's output head multiplies the positions of all rows at once, also where it is given some of each row.

    transformers gives it such a slice for `logits_to_keep`, so for the first token of every answer. Of a slice and a frozen weight
    torch makes a batch of products, and on a CPU in bfloat16 a copy of the weight for each row. For the first token of 64 answers by
    SmolLM2's head that took 12 s of CPU, and 0.015 s as one product (0.46 and 0.05 s in float32; torch 2.13.0, one thread).
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(_contiguous)
    try:
        yield
    finally:
        handle.remove()


def _contiguous(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.contiguous() if isinstance(one, torch.Tensor) else one for one in inputs)


def share_weights(model: Model, other: Model) -> int:
    """Let a model hold the weights of another one, where both have the same values under the same name.

    Adapters of one base then have that base in memory once. For models that are only read: what is written to one weight is
    written to both.

    Returns:
        The bytes that are held once in place of twice.
    """
    known, saved = {_plain_name(name): weight for name, weight in other.named_parameters()}, 0
    for name, weight in model.named_parameters():
        twin = known.get(_plain_name(name))
        if twin is None or weight.data_ptr() == twin.data_ptr():
            continue
        alike = (weight.shape, weight.dtype, weight.device) == (twin.shape, twin.dtype, twin.device)
        if alike and torch.equal(weight, twin):
            saved += weight.nbytes
            weight.data = twin.data
    return saved


def _plain_name(name: str) -> str:
    """Of a weight, as it is called without adapters."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
