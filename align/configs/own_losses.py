"""Configures methods that learn from single sampled answers by a loss of their own: T-SPMO."""

from dataclasses import dataclass, field

from .common import not_honoured
from .online import GRPOConfig
from .online_preference import OF_GRPOS_LOSS

_REFUSED = dict.fromkeys(OF_GRPOS_LOSS, "it belongs to GRPO's loss, which is not the loss here") | {
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}


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
