"""Configures HPT: GRPO whose unsolved prompts learn a demonstration."""

import math
from dataclasses import dataclass, field
from typing import Any

from .online import DynamicGRPOConfig


@dataclass
class HPTConfig(DynamicGRPOConfig):
    """Settings of `align.HPTTrainer` (arXiv:2509.04419): DynamicGRPOConfig's and those of demonstrations.

    The defaults that differ are the authors' code's: one fixed weight, advantages without a standard deviation, and a loss
    that is divided by a constant. Their sum over rows is not divided by the rows, which `dr_grpo` does: their weight of a
    demonstration is `demonstration_weight` times the number of rows here.

    Raises:
        ConfigError: If a setting contradicts another or would be ignored; all at once.
    """

    weighting: str = field(default="fixed", metadata={"help": "As of DynamicGRPOConfig."})
    estimator_options: dict[str, Any] | str | None = field(
        default_factory=lambda: {"scale": "none"}, metadata={"help": "As of DynamicGRPOConfig."}
    )
    loss_type: str = field(default="dr_grpo", metadata={"help": "As of DynamicGRPOConfig."})
    gate: int = field(
        default=0,
        metadata={
            "help": "A prompt with at most so many right completions learns its demonstration. The first reward says "
            "whether one is right: it is, from 1."
        },
    )
    demonstration_weight: float = field(
        default=1.0, metadata={"help": "Weight of the likelihood loss, a mean over the demonstrations' tokens."}
    )

    def text_columns(self) -> tuple[str, ...]:
        """See `MethodConfig.text_columns`."""
        return ("demonstration",)

    def problems(self) -> list[str]:
        """See `DynamicConfig.problems`."""
        found = super().problems()
        if not 0 <= self.gate < (self.num_generations or 1):
            found.append(f"gate: must be from 0 and below num_generations={self.num_generations}, or no prompt is left "
                         f"to the rewards, got {self.gate}")  # fmt: skip
        if not 0 < self.demonstration_weight < math.inf:
            found.append(f"demonstration_weight: must be positive and finite, got {self.demonstration_weight}; dynamic_grpo "
                         "learns no demonstrations")  # fmt: skip
        return found
