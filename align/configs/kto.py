"""Configures training on single answers that are labelled desirable or not."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from trl import KTOConfig as TRLKTOConfig

from .common import DROPOUT, MethodConfig, not_honoured, rebalances_batches, shards_on_cpus, three_valued

REFUSED = {
    "label_smoothing_factor": "it smooths cross-entropy",
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}
"""Fields of TRL's KTOConfig that must keep their default, and what to do instead."""
LOSSES = ("kto", "apo_zero_unpaired")


@dataclass
class KTOConfig(MethodConfig, TRLKTOConfig):
    """Settings of `align.KTOTrainer`. All fields of TRL's KTOConfig apply unless refused.

    Raises:
        ConfigError: If a field that the loss does not honour is set, or a value is out of range; all at once.
    """

    class_weights: Literal["given", "data"] = field(
        default="given",
        metadata={
            "help": "'given' takes `desirable_weight` and `undesirable_weight`; 'data' chooses them so that both labels "
            "weigh the same in all, the more frequent one keeping 1."
        },
    )
    shuffle_rows: bool = field(
        default=True,
        metadata={
            "help": "Shuffle the training rows once, by `data_seed` or `seed`, before each gets its mismatched answer. The "
            "order stays the same in every epoch. False keeps the order of the data, as TRL does."
        },
    )
    disable_dropout: bool | None = three_valued(  # pyright: ignore[reportIncompatibleVariableOverride]
        "disable_dropout", DROPOUT
    )

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        found = not_honoured(self, REFUSED, also={"router_aux_loss_coef": 0.0})
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            if not 0 < getattr(self, name) < math.inf:
                found.append(f"{name}: must be positive and finite, got {getattr(self, name)}")
        if self.loss_type not in LOSSES:
            found.append(f"loss_type: must be one of {', '.join(LOSSES)}, got {self.loss_type!r}")
        if self.class_weights not in ("given", "data"):
            found.append(f"class_weights: must be 'given' or 'data', got {self.class_weights!r}")
        given = (self.desirable_weight, self.undesirable_weight) != (1.0, 1.0)
        if self.class_weights == "data" and given:
            found.append(
                "class_weights: 'data' chooses both weights; leave desirable_weight and undesirable_weight out"
            )
        if self.mismatches() and self.per_device_train_batch_size < 2:
            found.append(
                "per_device_train_batch_size: must be at least 2, for mismatched answers; use accumulation less"
            )
        if self.mismatches() and self.train_sampling_strategy != "sequential":
            found.append(
                f"train_sampling_strategy: must be 'sequential', got {self.train_sampling_strategy!r}: a row and its "
                "mismatched answer belong to one step; shuffle_rows shuffles before they are matched"
            )
        if self.sync_ref_model:
            found.append("sync_ref_model: not with an adapter, and not tried without; leave it out")
        return found + super().problems() + shards_on_cpus(self) + rebalances_batches(self)

    def mismatches(self) -> bool:
        """Whether the loss needs mismatched rows."""
        return self.loss_type == "kto"

    def weighs_labels(self) -> bool:
        """Whether the loss has weights of the two labels."""
        return True

    def label_weights(self) -> tuple[float, float] | None:
        """Weights of the two labels, or None if they are chosen by the data."""
        return None if self.class_weights == "data" else (self.desirable_weight, self.undesirable_weight)

    def rows_per_step(self) -> int:
        """Rows of one optimizer step, over all processes."""
        made = cast("Any", self)
        return made.per_device_train_batch_size * made.gradient_accumulation_steps * made.world_size

    def turns_dropout_off(self) -> bool:
        """See `MethodConfig.turns_dropout_off`."""
        return bool(self.disable_dropout)

    def stores_reference(self) -> bool:
        """See `MethodConfig.stores_reference`."""
        return self.precompute_ref_log_probs
