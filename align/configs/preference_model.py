"""Configures preference and reward models, extending TRL's RewardConfig."""

import math
from dataclasses import dataclass, field

from trl import RewardConfig

from align.losses.general_preference import check_dimension

from .common import DROPOUT, MethodConfig, not_honoured, shards_on_cpus, three_valued

REFUSED = {
    "trust_remote_code": "code of a model is never run",
    "label_smoothing_factor": "it smooths cross-entropy, which is not the loss here",
    "pad_token": "deprecated by TRL; set tokenizer.pad_token",
}
"""Fields of TRL's RewardConfig that must keep their default, and what to do instead."""


@dataclass
class PreferenceModelConfig(MethodConfig, RewardConfig):
    """Settings of `PreferenceModelTrainer`. All fields of TRL's RewardConfig apply unless refused.

    Raises:
        ConfigError: If a field that is not honoured is set, or a value is out of range; all at once.
    """

    disable_dropout: bool | None = three_valued(  # pyright: ignore[reportIncompatibleVariableOverride]
        "disable_dropout", DROPOUT
    )
    dimension: int = field(
        default=1,
        metadata={
            "help": "Dimensions of an answer's embedding: 1 is a Bradley-Terry reward model, an even number a general "
            "preference model (the authors use 2 to 8)."
        },
    )
    tau: float = field(
        default=1.0,
        metadata={"help": "Temperature: a preference has probability σ(score / tau). The general model uses 0.1."},
    )
    margin_column: str | None = field(
        default=None,
        metadata={"help": "Column of the data by how much the chosen answer should be ahead, in units of the score."},
    )
    reference_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the data with a reference answer, which the model reads before each answer (POLAR). The "
            "same has to be given when answers are scored."
        },
    )

    def turns_dropout_off(self) -> bool:
        """See `MethodConfig.turns_dropout_off`."""
        return bool(self.disable_dropout)

    def columns(self) -> tuple[str, ...]:
        """Further columns of the data that these settings need: one finite number per row each."""
        return () if self.margin_column is None else (self.margin_column,)

    def text_columns(self) -> tuple[str, ...]:
        """Further columns of the data that these settings need: one text per row each."""
        return () if self.reference_column is None else (self.reference_column,)

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        found = not_honoured(self, REFUSED)
        try:
            check_dimension(self.dimension)
        except ValueError as error:
            found.append(str(error))
        if not 0 < self.tau < math.inf:
            found.append(f"tau: must be positive and finite, got {self.tau}")
        center = self.center_rewards_coefficient
        if center is not None and not 0 <= center < math.inf:
            found.append(f"center_rewards_coefficient: must be finite and not negative, got {center}")
        if center is not None and self.dimension != 1:
            found.append(
                f"center_rewards_coefficient: there are no rewards to centre at dimension {self.dimension}; leave it out"
            )
        named = {"margin_column": self.margin_column, "reference_column": self.reference_column}
        found += [
            f"{name}: must name a column other than prompt, chosen and rejected, got {value!r}"
            for name, value in named.items()
            if value in ("", "prompt", "chosen", "rejected")
        ]
        if self.margin_column is not None and self.margin_column == self.reference_column:
            found.append(f"reference_column: {self.margin_column!r} is the margin's column already")
        if self.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
            found.append(
                f"train_sampling_strategy: {self.train_sampling_strategy!r} needs lengths that pairs do not have; use 'random'"
            )
        template = self.chat_template_path
        if template is not None and not template.endswith((".jinja", ".j2")):
            found.append(
                f"chat_template_path: must be a .jinja file, got {template!r}: tokens of another tokenizer would be missing "
                "when the model is loaded again"
            )
        return found + shards_on_cpus(self) + super().problems()
