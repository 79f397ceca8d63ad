"""Configures the preference trainers, and refuses fields of TRL that no loss of ours honours."""

import math
from dataclasses import dataclass, field
from typing import Literal

from trl import DPOConfig as TRLDPOConfig

from align.losses.divergences import Divergence, divergence
from align.losses.objectives import PairBatch
from align.losses.preference import Pair, f_dpo_loss, implicit_rewards

from .common import (
    DROPOUT,
    ConfigError,
    SharesPrompts,
    not_honoured,
    rebalances_batches,
    shards_on_cpus,
    three_valued,
)

_OWN_LOSS = "the loss is the method's own: choose the method instead"
REFUSED = {
    "loss_type": _OWN_LOSS,
    "loss_weights": _OWN_LOSS,
    "ld_alpha": _OWN_LOSS,
    "use_weighting": _OWN_LOSS,
    "discopop_tau": _OWN_LOSS,
    "f_divergence_type": "use FDPOConfig (method: fdpo) and its `divergence`",
    "f_alpha_divergence_coef": "use FDPOConfig (method: fdpo) and its `alpha`, which is 1 minus this coefficient",
    "label_smoothing": "only DPOConfig (method: dpo) has it",
    "label_smoothing_factor": "it smooths cross-entropy; DPOConfig has `label_smoothing` for flipped labels",
    "padding_free": "TRL accepts it and does not do it",
    "truncation_mode": "TRL has deprecated 'keep_end'; shorten the prompts instead",
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}
"""Fields of TRL's DPOConfig that must keep their default, and what to do instead."""


@dataclass
class PreferenceConfig(SharesPrompts, TRLDPOConfig):
    """What `DPOConfig`, `RPOConfig` and `FDPOConfig` share. All fields of TRL's DPOConfig apply unless refused.

    Raises:
        ConfigError: If a field that no loss of ours honours is set, or a value is out of range; all at once.
    """

    global_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs per optimizer step over all processes. `gradient_accumulation_steps` follows from it, the "
            "number of processes and `per_device_train_batch_size`."
        },
    )
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens in one forward pass of training on one device. A batch with more is computed in parts, "
            "with the same gradient: it bounds memory, whatever `per_device_train_batch_size` is. Not with DeepSpeed."
        },
    )
    displacement_pairs: int = field(
        default=0,
        metadata={
            "help": "At each evaluation, log how far the log-probability of the chosen, the rejected and the initially "
            "greedy answer of so many pairs has moved (`align.trainers.pairs.displacement`)."
        },
    )

    gradient_checkpointing: bool | None = three_valued(  # pyright: ignore[reportIncompatibleVariableOverride]
        "gradient_checkpointing",
        "Recompute activations in backward, for memory at the price of another forward pass. By default only if the "
        "largest batch would not fit otherwise, which two forward passes at the start find out.",
    )

    disable_dropout: bool | None = three_valued(  # pyright: ignore[reportIncompatibleVariableOverride]
        "disable_dropout", DROPOUT
    )

    def _trl_checks(self) -> None:
        self.chooses_checkpointing = self.gradient_checkpointing is None and self.activation_checkpointing is None
        super()._trl_checks()

    def _derive(self) -> None:
        if self.global_batch_size is not None:
            self._derive_accumulation(self.global_batch_size)

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        found = not_honoured(self, self._refused(), also={"loss_type": "sigmoid", "router_aux_loss_coef": 0.0})
        if not self.beta > 0:
            found.append(f"beta: must be positive, got {self.beta}")
        elif math.isinf(self.beta):
            found.append(f"beta: must be finite, got {self.beta}")
        if self.max_tokens_per_batch is not None and self.deepspeed:
            found.append("max_tokens_per_batch: DeepSpeed would take an optimizer step after every part; leave it out")
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            found.append(f"max_tokens_per_batch: must be at least 1, got {self.max_tokens_per_batch}")
        if self.displacement_pairs < 0:
            found.append(f"displacement_pairs: must not be negative, got {self.displacement_pairs}")
        return found + super().problems() + shards_on_cpus(self) + rebalances_batches(self)

    def turns_dropout_off(self) -> bool:
        """See `MethodConfig.turns_dropout_off`."""
        return bool(self.disable_dropout)

    def moves_reference(self) -> bool:
        """See `MethodConfig.moves_reference`."""
        return self.sync_ref_model

    def stores_reference(self) -> bool:
        """See `MethodConfig.stores_reference`."""
        return self.precompute_ref_log_probs

    def reads_reference(self) -> bool:
        """Whether the loss depends on the reference. Where it does not, training never scores it; evaluation may."""
        return True

    def pairs_per_step(self) -> int | None:
        """See `MethodConfig.pairs_per_step`."""
        return self.global_batch_size

    def implicit_rewards(self, batch: PairBatch) -> Pair:
        """What the loss is a function of, (B,) for each answer; the evaluation ranks and calibrates by it."""
        return implicit_rewards(batch.log_ratio, beta=self.beta)

    def reader_of(self, column: str) -> str:
        """What needs such a column, for messages."""
        return type(self).__name__

    def _refused(self) -> dict[str, str]:
        return REFUSED

    def _derive_accumulation(self, pairs: int) -> None:
        per_step = self.per_device_train_batch_size * self.world_size
        steps, rest = divmod(pairs, per_step)
        if rest or steps < 1:
            raise ConfigError(
                f"global_batch_size: must be a multiple of per_device_train_batch_size x processes = "
                f"{self.per_device_train_batch_size} x {self.world_size}, got {pairs}"
            )
        if self.gradient_accumulation_steps not in (1, steps):
            raise ConfigError(
                f"gradient_accumulation_steps: global_batch_size={pairs} asks for {steps}, got "
                f"{self.gradient_accumulation_steps}; give one of the two"
            )
        self.gradient_accumulation_steps = steps


@dataclass
class DPOConfig(PreferenceConfig):
    """Settings of `align.DPOTrainer`. `label_smoothing` ε in [0, 0.5) makes it conservative DPO (TRL ignores it)."""

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if not 0.0 <= self.label_smoothing < 0.5:
            found.append(f"label_smoothing: must be in [0, 0.5), got {self.label_smoothing}")
        return found

    def _refused(self) -> dict[str, str]:
        return {name: why for name, why in super()._refused().items() if name != "label_smoothing"}


@dataclass
class RPOConfig(PreferenceConfig):
    """Settings of `align.RPOTrainer`: Regularized Preference Optimization (arXiv:2405.16436)."""

    eta: float = field(
        default=0.005,
        metadata={"help": "Weight of the chosen answer's negative log-likelihood; the paper uses 0.005. 0 is DPO."},
    )
    sft_reduction: Literal["sum", "sequence_mean"] = field(
        default="sum",
        metadata={"help": "'sum' over the chosen answer's tokens (the paper) or 'sequence_mean' over its own tokens."},
    )
    scale_by_beta: bool = field(
        default=True,
        metadata={"help": "Weight eta * beta (the paper) or eta alone (the authors' second variant)."},
    )

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if self.eta < 0:
            found.append(f"eta: must not be negative, got {self.eta}")
        elif not math.isfinite(self.eta):
            found.append(f"eta: must be finite, got {self.eta}")
        if self.sft_reduction not in ("sum", "sequence_mean"):
            found.append(f"sft_reduction: must be 'sum' or 'sequence_mean', got {self.sft_reduction!r}")
        return found


@dataclass
class FDPOConfig(PreferenceConfig):
    """Settings of `align.FDPOTrainer`: f-DPO (arXiv:2309.16240)."""

    divergence: str = field(
        default="jensen_shannon",
        metadata={"help": "reverse_kl, forward_kl, jensen_shannon, alpha or chi_squared_kl."},
    )
    alpha: float | None = field(
        default=None,
        metadata={"help": "The paper's α in (0, 1), for divergence 'alpha' only. TRL's coefficient is 1 - α."},
    )
    beta_scaling: Literal["raw", "curvature"] = field(
        default="raw",
        metadata={"help": "'curvature' divides beta by f''(1): equal beta, equal strength near the reference."},
    )

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        try:
            self.generator()
        except ValueError as error:
            found.append(str(error))
        if self.beta_scaling not in ("raw", "curvature"):
            found.append(f"beta_scaling: must be 'raw' or 'curvature', got {self.beta_scaling!r}")
        return found

    def implicit_rewards(self, batch: PairBatch) -> Pair:
        """β f'(u), its scaling by curvature included."""
        f = self.generator()
        return f_dpo_loss(batch.log_ratio, beta=self.beta, f=f, beta_scaling=self.beta_scaling).rewards

    def generator(self) -> Divergence:
        """The divergence these settings name."""
        return divergence(self.divergence, alpha=self.alpha)


@dataclass
class TDPOConfig(PreferenceConfig):
    """Settings of `align.TDPOTrainer`: token-level DPO (arXiv:2404.11999). The defaults are TDPO2's."""

    kl_weight: float = field(
        default=0.5,
        metadata={"help": "α, the weight of the answers' summed token KL: 1 in TDPO1, 0.5 in TDPO2's runs."},
    )
    hold_chosen_kl: bool = field(
        default=True, metadata={"help": "Whether the chosen answer's KL has no gradient: true in TDPO2."}
    )

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if not 0 <= self.kl_weight < math.inf:
            found.append(f"kl_weight: must be finite and not negative, got {self.kl_weight}")
        if self.precompute_ref_log_probs:
            found.append("precompute_ref_log_probs: the reference's whole distributions are needed; set it to false")
        return found
