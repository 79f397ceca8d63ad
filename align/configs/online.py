"""Configurations of the online trainers."""

from dataclasses import dataclass, field
from typing import Literal

from trl import GRPOConfig as TRLGRPOConfig
from trl import RLOOConfig as TRLRLOOConfig

from .common import SHARED_PREFIX, SKIPPED


@dataclass
class GRPOConfig(TRLGRPOConfig):
    """TRL's GRPOConfig, `shared_prefix` and `max_skipped_steps`."""

    shared_prefix: Literal["auto", "on", "off"] = field(default="auto", metadata={"help": SHARED_PREFIX})
    max_skipped_steps: int = field(default=10, metadata={"help": SKIPPED})


@dataclass
class RLOOConfig(TRLRLOOConfig):
    """TRL's RLOOConfig, `shared_prefix` and `max_skipped_steps`."""

    shared_prefix: Literal["auto", "on", "off"] = field(default="auto", metadata={"help": SHARED_PREFIX})
    max_skipped_steps: int = field(default=10, metadata={"help": SKIPPED})
