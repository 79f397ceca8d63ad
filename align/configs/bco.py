"""Configures a binary classifier of labelled answers."""

import math
from dataclasses import dataclass, field

from align.rewards.relevance import encoder_folder

from .common import not_honoured
from .kto import KTOConfig

_WEIGHTS = "BCO weighs both labels the same; method: kto has weights"
NOT_BCO = {
    "loss_type": "the loss is BCO's; method: kto has loss types",
    "desirable_weight": _WEIGHTS,
    "undesirable_weight": _WEIGHTS,
    "class_weights": _WEIGHTS,
}
"""Fields of KTOConfig that must keep their default, and what to do instead."""
REFERENCE = "reference"
"""The encoder of prompts that is no other model."""


@dataclass
class BCOConfig(KTOConfig):
    """Settings of `align.BCOTrainer`: those of KTOConfig, without weights of the labels.

    Raises:
        ConfigError: If a field that the loss does not honour is set, or a value is out of range; all at once.
    """

    loss_type: str = field(
        default="apo_zero_unpaired",
        metadata={
            "help": "Not to be set: the loss is BCO's. The default is TRL's name of rows without mismatched answers."
        },
    )

    prompt_encoder: str | None = field(
        default=None,
        metadata={
            "help": "With an encoder, undesirable rows weigh by the density ratio of their prompts: 'reference' takes the "
            "reference's hidden states, else a folder with a sentence encoder, or package:PACKAGE/FOLDER."
        },
    )
    min_density_ratio: float = field(default=0.5, metadata={"help": "The least that an undesirable row weighs."})
    max_density_ratio: float = field(default=10.0, metadata={"help": "The most that an undesirable row weighs."})

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        found = [*not_honoured(self, NOT_BCO), *super().problems()]
        if not 0 <= self.min_density_ratio <= self.max_density_ratio < math.inf:
            found.append(
                "min_density_ratio: must be from 0 to max_density_ratio, which is finite, got "
                f"{self.min_density_ratio} and {self.max_density_ratio}"
            )
        if self.prompt_encoder not in (None, REFERENCE):
            try:
                encoder_folder(str(self.prompt_encoder))
            except ValueError as error:
                found.append(f"prompt_encoder: {str(error).removeprefix('model: ')}; or say {REFERENCE!r}")
        return found

    def weighs_labels(self) -> bool:
        """See `KTOConfig.weighs_labels`."""
        return False
