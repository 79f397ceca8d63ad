"""Configures losses that depend on all pairs of an optimizer step."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .common import ConfigError
from .preference import PreferenceConfig


@dataclass
class AOTConfig(PreferenceConfig):
    """Settings of `align.AOTTrainer` (arXiv:2406.05882). `label_smoothing` in [0, 0.5) is TRL's."""

    matching: Literal["paired", "unpaired"] = field(
        default="paired",
        metadata={
            "help": "'paired' matches the pairs' gaps of policy and reference by rank within the step; 'unpaired' matches "
            "chosen and rejected rewards, whatever pairs they are of."
        },
    )

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if self.matching not in ("paired", "unpaired"):
            found.append(f"matching: must be 'paired' or 'unpaired', got {self.matching!r}")
        if not 0.0 <= self.label_smoothing < 0.5:
            found.append(f"label_smoothing: must be in [0, 0.5), got {self.label_smoothing}")
        return found

    def _derive(self) -> None:
        super()._derive()
        made = cast("Any", self)
        if made.per_device_train_batch_size * made.gradient_accumulation_steps * made.world_size < 2:
            raise ConfigError(
                "per_device_train_batch_size: a step of one pair matches it to itself, which is method dpo; raise it"
            )

    def _refused(self) -> dict[str, str]:
        return {name: why for name, why in super()._refused().items() if name != "label_smoothing"}


@dataclass
class BetaDPOConfig(PreferenceConfig):
    """Settings of `align.BetaDPOTrainer` (arXiv:2407.08639). `beta` is β₀."""

    margin_weight: float = field(
        default=0.6,
        metadata={"help": "a: by how much β grows for a nat that the step's mean gap is above usual. 0 is DPO."},
    )
    margin_decay: float = field(
        default=0.9, metadata={"help": "What the moving mean of gaps keeps of itself in each step, in [0, 1)."}
    )
    filter_ratio: float = field(
        default=0.0,
        metadata={
            "help": "The share of a step's pairs that is left out by chance, those far from the moving mean of gaps first, in "
            "[0, 1). The authors' runs have 0.2."
        },
    )

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if not 0 <= self.margin_weight < math.inf:
            found.append(f"margin_weight: must be finite and not negative, got {self.margin_weight}")
        if not 0 <= self.margin_decay < 1:
            found.append(f"margin_decay: must be in [0, 1), got {self.margin_decay}")
        if not 0 <= self.filter_ratio < 1:
            found.append(f"filter_ratio: must be in [0, 1), got {self.filter_ratio}")
        return found
