"""Configures a binary classifier of labelled answers."""

from dataclasses import dataclass, field

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

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        return [*not_honoured(self, NOT_BCO), *super().problems()]

    def weighs_labels(self) -> bool:
        """See `KTOConfig.weighs_labels`."""
        return False
