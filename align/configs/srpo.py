"""Configures self-improving robust preference optimization."""

import math
from dataclasses import dataclass, field

from align.data.prompts.revision import INSTRUCTION

from .preference import PreferenceConfig


@dataclass
class SRPOConfig(PreferenceConfig):
    """Settings of `align.SRPOTrainer` (arXiv:2406.01660). A row costs three pairs: plain, and after each answer."""

    beta: float = field(default=0.1, metadata={"help": "Strength of the pull towards the reference."})
    alpha: float = field(default=0.5, metadata={"help": "Weight of the revisions' part of the loss, in [0, 1]."})
    revision_instruction: str = field(
        default=INSTRUCTION, metadata={"help": "What the user says after a draft, to have it improved."}
    )
    gradient_checkpointing: bool = field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default=True, metadata={"help": "Recompute activations in backward, for memory at the price of time."}
    )

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if not (math.isfinite(self.alpha) and 0 <= self.alpha <= 1):
            found.append(f"alpha: must be in [0, 1], got {self.alpha}")
        if not self.revision_instruction.strip():
            found.append("revision_instruction: is empty; say what is asked for after a draft")
        if self.precompute_ref_log_probs:
            found.append("precompute_ref_log_probs: the store holds pairs, not revisions; leave it out")
        if self.max_tokens_per_batch is not None:
            found.append(
                "max_tokens_per_batch: would tear a pair from its revisions; lower per_device_train_batch_size"
            )
        return found
