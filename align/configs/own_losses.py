"""Configures methods that learn from single sampled answers by a loss of their own: T-SPMO and f-DPG."""

from dataclasses import dataclass, field

from align.losses.matching import MATCHED

from .common import not_honoured
from .online import GRPOConfig
from .online_preference import OF_GRPOS_LOSS

_REFUSED = dict.fromkeys(OF_GRPOS_LOSS, "it belongs to GRPO's loss, which is not the loss here") | {
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}
_LAW = dict.fromkeys(
    ("top_p", "top_k", "min_p", "repetition_penalty"),
    "samples must have the policy's own law, by which they are weighed",
) | {"mask_truncated_completions": "a completion without tokens has no log-probability; raise max_completion_length"}


@dataclass
class OwnLossConfig(GRPOConfig):
    """GRPOConfig's settings of sampling, without those of its loss."""

    vllm_importance_sampling_correction: bool = field(default=False, metadata={"help": "Not used by these losses."})

    def problems(self) -> list[str]:
        """See `OnlineConfig.problems`."""
        return not_honoured(self, _REFUSED, also={"router_aux_loss_coef": 0.0}) + super().problems()


@dataclass
class TSPMOConfig(OwnLossConfig):
    """Settings of `align.TSPMOTrainer` (arXiv:2504.20834): GRPOConfig's of sampling.

    The paper's penalty on the adapter's weights is `weight_decay`, which AdamW takes apart from the gradient.

    Raises:
        ConfigError: If a setting contradicts another or would be ignored; all at once.
    """

    def problems(self) -> list[str]:
        """See `OnlineConfig.problems`."""
        found = super().problems()
        if self.beta != 0:
            found.append(
                f"beta: no reference is in the loss, which pulls by weight_decay; leave it out, got {self.beta}"
            )
        if self.mask_truncated_completions:
            found.append("mask_truncated_completions: a completion that is cut parts from others as far as it goes; leave it "
                         "out")  # fmt: skip
        return found


@dataclass
class FDPGConfig(OwnLossConfig):
    """Settings of `align.FDPGTrainer` (arXiv:2302.08215): GRPOConfig's of sampling, and those of the target and the divergence.

    Raises:
        ConfigError: If a setting contradicts another or would be ignored; all at once.
    """

    beta: float = field(
        default=0.1,
        metadata={"help": "The target is the reference times e^(reward / beta), normalised for each prompt."},
    )
    divergence: str = field(
        default="jensen_shannon",
        metadata={
            "help": "From the policy π to the target p: forward_kl, KL(p‖π); reverse_kl, KL(π‖p); jensen_shannon; "
            "total_variation."
        },
    )
    baseline_window: int = field(
        default=1024,
        metadata={"help": "The baseline is the mean pseudo-reward of so many last completions; 0 has none."},
    )

    def problems(self) -> list[str]:
        """See `OnlineConfig.problems`."""
        found = not_honoured(self, _LAW) + super().problems()
        if self.beta == 0:
            found.append("beta: must be positive, got 0; the target is the reference times e^(reward / beta)")
        if self.divergence not in MATCHED:
            found.append(f"divergence: must be one of {', '.join(MATCHED)}, got {self.divergence!r}")
        if self.baseline_window < 0:
            found.append(f"baseline_window: must not be negative, got {self.baseline_window}")
        return found
