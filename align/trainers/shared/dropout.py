"""LoRA dropout is honoured or refused, never switched off silently."""

from peft import LoraConfig, PeftConfig


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
