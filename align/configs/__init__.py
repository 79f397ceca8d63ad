"""Extends TRL's configurations, one per method, and refuses inherited fields that our losses do not honour."""

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
