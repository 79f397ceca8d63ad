"""One configuration per method, extending TRL's; inherited fields that our losses do not honour are refused."""

from .common import ConfigError
from .online import GRPOConfig, RLOOConfig
from .preference import DPOConfig, FDPOConfig, PreferenceConfig, RPOConfig

__all__ = [
    "ConfigError",
    "DPOConfig",
    "FDPOConfig",
    "GRPOConfig",
    "PreferenceConfig",
    "RLOOConfig",
    "RPOConfig",
]
