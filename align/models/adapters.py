"""Tells which settings of an adapter leave no reference: off, it must leave what training started from."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from peft import PeftConfig, PeftModel

REBASED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that take what the adapter begins with out of the base weights; also with a suffix."""
FROM_DATA = ("eva", "corda", "lora_ga")
"""Initialisations that want a pass over data first."""
ORDINARY = frozenset(
    [
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "task_type",
        "peft_type",
        "inference_mode",
        "base_model_name_or_path",
        "revision",
        "peft_version",
        "auto_mapping",
        "fan_in_fan_out",
        "runtime_config",
    ]
)


def without_reference(config: Any, *, made: bool = False) -> Iterator[tuple[str, str]]:
    """Settings of an adapter under which the model without it is not the model as it was, each with the reason.

    Args:
        config: Of the adapter, from PEFT.
        made: Whether the adapter is there already; else it is made as training begins, and by nothing but its settings.
    """
    setting = "init_lora_weights" if hasattr(config, "init_lora_weights") else "init_weights"
    init = getattr(config, setting, True)
    name = init.lower() if isinstance(init, str) else init
    if isinstance(name, str) and name.startswith(REBASED):
        yield (
            "init_lora_weights",
            f"{init!r} takes what the adapter begins with out of the base weights, so the model without its adapter is "
            "not what training starts from; use true, 'gaussian' or 'orthogonal'",
        )
    elif name is False and not made:
        yield (
            setting,
            "False starts from a random adapter, not from the reference; use true"
            + (", 'gaussian' or 'orthogonal'" if setting == "init_lora_weights" else ""),
        )
    elif name in FROM_DATA and not made:
        yield (
            "init_lora_weights",
            f"{init!r} wants a pass over data before training, which nobody makes here; use true, 'gaussian' or "
            "'orthogonal'",
        )
    if getattr(config, "bias", "none") != "none":
        yield (
            "bias",
            f"{config.bias!r} trains biases of the base, and they stay when the adapter is off: the reference would move "
            "with the policy; use 'none'",
        )


def settings_of(model: PeftModel) -> str:
    """The settings of a model's adapter that are not PEFT's defaults, without its size and place; for messages."""
    config = model.peft_config[active_adapter(model)]
    return f"{type(config).__name__}({', '.join(_unusual(config))})"


def active_adapter(model: PeftModel) -> str:
    """The name of the adapter that is on."""
    name: Any = model.active_adapter
    return name if isinstance(name, str) else str(next(iter(name)))


def _unusual(config: PeftConfig) -> Iterator[str]:
    for field in fields(config):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = getattr(config, field.name)
        if field.name not in ORDINARY and value != default and value is not None:
            yield f"{field.name}={value!r}"
