"""One configuration per method, extending TRL's; inherited fields that our losses do not honour are refused."""

from .common import ConfigError
from .online import GRPOConfig, RLOOConfig
from .preference import DPOConfig, FDPOConfig, PreferenceConfig, RPOConfig

__all__ = [
    "CONFIGS",
    "ConfigError",
    "DPOConfig",
    "FDPOConfig",
    "GRPOConfig",
    "PreferenceConfig",
    "RLOOConfig",
    "RPOConfig",
]

CONFIGS: dict[str, type[PreferenceConfig]] = {"dpo": DPOConfig, "rpo": RPOConfig, "fdpo": FDPOConfig}
"""Configuration of each method that a recipe can name; `align.methods` adds the trainers."""
