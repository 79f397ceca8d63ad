"""The model of several studies, the adapter that they train on it, and how it is warmed up."""

from typing import Any

from math_objectives import SMOLLM2, save_whole, warmed

__all__ = ["SMOLLM2", "adapters", "save_whole", "warmed"]


def adapters(layers: range) -> dict[str, Any]:
    """LoRA on all matrices of some layers."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return {"r": 16, "lora_alpha": 32, "target_modules": names, "layers_to_transform": list(layers)}
