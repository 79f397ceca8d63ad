"""Honours or refuses dropout of the policy, and never switches it off silently; a reference has none."""

import contextlib
from collections.abc import Iterator

from peft import LoraConfig, PeftConfig
from torch import nn


def refuse_silent_dropout(config: PeftConfig | None, disable_dropout: bool, where: str) -> None:
    """Raise if `disable_dropout=True` would switch off a LoRA dropout that the user asked for.

    Raises:
        ValueError: In that case, with both remedies.
    """
    if disable_dropout and isinstance(config, LoraConfig) and config.lora_dropout > 0:
        raise ValueError(
            f"{where}: lora_dropout={config.lora_dropout} would be switched off by disable_dropout=True; "
            "set disable_dropout=False to train with it, or lora_dropout=0"
        )


@contextlib.contextmanager
def dropout_off(*models: nn.Module | None) -> Iterator[None]:
    """Every module in evaluation mode: the reference is deterministic even where the policy has dropout.

    Attention dropout is a function that reads its module's mode, so switching `nn.Dropout` off would not do.
    """
    active = [module for model in models if model is not None for module in model.modules() if module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True
