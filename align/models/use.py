"""Pairs a model with what it was loaded from, and turns its adapters off where it is the reference."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

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
