"""Configures `OnlinePreferenceTrainer`, and the methods that have a name: online DPO and IPO, EGPO, Nash-MD and XPO."""

import math
from dataclasses import dataclass, field
from typing import Literal

from align.losses.objectives import OBJECTIVES
from align.losses.online import NASH_MD

from .common import DROPOUT, defaults_of, not_honoured, raise_all, three_valued
from .online import GRPOConfig
from .pairwise import Preset, WeighsObjectives

OF_GRPOS_LOSS = (
    "loss_type", "epsilon", "epsilon_high", "delta", "sapo_temperature_neg", "sapo_temperature_pos", "vespo_k_pos",
    "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg", "importance_sampling_level", "multi_objective_aggregation",
    "scale_rewards", "top_entropy_quantile", "entropy_coef", "use_adaptive_entropy", "off_policy_mask_threshold",
    "use_bias_correction_kl", "vllm_importance_sampling_correction",
)  # fmt: skip
"""Fields that a method with a loss of its own does not read."""
_REFUSED = dict.fromkeys(OF_GRPOS_LOSS, "it belongs to GRPO's loss; the loss here is `objective`") | {
    "num_iterations": "answers are learnt from once, in the step that sampled them",
    "num_generations": "two answers to a prompt make a pair",
    "mask_truncated_completions": "an answer without tokens has no log-probability; raise max_completion_length",
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}  # fmt: skip
"""Fields of TRL's GRPOConfig that must keep their default, and why."""
_READ_BY = {"mixture": "mixture", "optimism": "reference"}
"""Settings that only one kind of second answer reads."""


@dataclass
class OnlinePreferenceConfig(WeighsObjectives, GRPOConfig):
    """Settings of `align.OnlinePreferenceTrainer`: GRPOConfig's of sampling, and those of a loss on pairs.

    One generation batch is one optimizer step: two answers to each of its prompts, sampled by the policy as it is then.

    Raises:
        ConfigError: If a setting contradicts another or would be ignored; all at once.
    """

    beta: float = field(default=0.1, metadata={"help": "Strength of the pull towards the reference, as in DPO."})
    num_generations: int | None = field(default=2, metadata={"help": "Two answers to a prompt."})
    vllm_importance_sampling_correction: bool = field(default=False, metadata={"help": "Not used by losses on pairs."})
    disable_dropout: bool | None = three_valued(  # pyright: ignore[reportIncompatibleVariableOverride]
        "disable_dropout", DROPOUT
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "Rate of flipped labels, for those that read it."})
    discopop_tau: float = field(default=0.05, metadata={"help": "DiscoPOP's temperature."})
    label: Literal["expected", "sampled", "likelier"] = field(
        default="expected",
        metadata={
            "help": "What a preference of P for the first answer makes of a pair: 'expected' weighs both orders by P and "
            "1 - P, 'sampled' draws one, 'likelier' takes the larger (and both, halved, for a tie)."
        },
    )
    reward_temperature: float = field(
        default=1.0,
        metadata={
            "help": "With reward functions: P(first preferred) = σ(difference of rewards / reward_temperature); 0 prefers "
            "the larger for certain. A scorer says P itself."
        },
    )
    preferred_by: Literal["sum", "dominance"] = field(
        default="sum",
        metadata={
            "help": "With reward functions: 'sum' compares their weighted sum, as reward_temperature says. 'dominance' prefers "
            "an answer for certain if it is worse in no reward and better in one; two others tie (no scale counts)."
        },
    )
    second: Literal["policy", "reference", "mixture"] = field(
        default="policy",
        metadata={
            "help": "Who gives the second answer; the policy gives the first. 'mixture': token by token, of both."
        },
    )
    mixture: float = field(
        default=0.5,
        metadata={"help": "With second 'mixture': the reference's share, of the logits of each token (token_mixture)."},
    )
    optimism: float = field(
        default=1e-5,
        metadata={
            "help": "With second 'reference': XPO's α, the weight of log π of the reference's answer in the loss."
        },
    )
    prompt_weights: float | None = field(
        default=None,
        metadata={
            "help": "With reward functions: in each step the weights of the rewards are drawn anew for each prompt, from a "
            "Dirichlet law whose parameters all are this number, and written after the prompt, in tenths; answers are then "
            "compared by these weights. 1 draws all weights alike."
        },
    )
    extragradient: bool = field(
        default=False,
        metadata={
            "help": "EGPO: in each step, take a half step on answers of the policy, sample anew from where it leads, put "
            "weights and optimizer back, and learn from these answers."
        },
    )

    def turns_dropout_off(self) -> bool:
        """See `MethodConfig.turns_dropout_off`."""
        return bool(self.disable_dropout)

    def objectives(self) -> tuple[str, ...]:
        """See `WeighsObjectives.objectives`."""
        return (*OBJECTIVES, NASH_MD)

    def compares(self, name: str) -> bool:
        """See `WeighsObjectives.compares`."""
        return name == NASH_MD or super().compares(name)

    def problems(self) -> list[str]:
        """See `OnlineConfig.problems`."""
        found = not_honoured(self, _REFUSED, also={"router_aux_loss_coef": 0.0}) + super().problems()
        if self.beta == 0:
            found.append("beta: must be positive, got 0; the loss is a function of log-ratios times β")
        choices = {
            "label": ("expected", "sampled", "likelier"),
            "preferred_by": ("sum", "dominance"),
            "second": ("policy", "reference", "mixture"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                found.append(f"{name}: must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("reward_temperature", "optimism"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name}: must be finite and not negative, got {getattr(self, name)}")
        if not 0 < self.mixture < 1:
            found.append(f"mixture: must be in (0, 1), got {self.mixture}; second: policy is 0, second: reference is 1")
        for name, who in _READ_BY.items():
            if self.second != who and getattr(self, name) != defaults_of(self)[name]:
                found.append(f"{name}: only second: {who} reads it, got {getattr(self, name)}")
        if self.num_generations_eval not in (None, 2):
            found.append(f"num_generations_eval: two answers to a prompt make a pair, got {self.num_generations_eval}")
        if self.prompt_weights is not None and not 0 < self.prompt_weights < math.inf:
            found.append(f"prompt_weights: must be positive and finite, got {self.prompt_weights}")
        if self.prompt_weights is not None and self.reward_weights is not None:
            found.append("reward_weights: drawn for each prompt with prompt_weights; leave it out")
        if self.preferred_by == "dominance":
            found += [
                f"{name}: only preferred_by: sum reads it, got {getattr(self, name)}; leave it out"
                for name in ("reward_temperature", "reward_weights", "prompt_weights")
                if getattr(self, name) != defaults_of(self)[name]
            ]
        weights = self.reward_weights
        if weights is not None and not (all(map(math.isfinite, weights)) and any(weights)):
            found.append(f"reward_weights: must be finite and not all 0, got {weights}")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
            if getattr(self, name) % 2:
                found.append(f"{name}: must be even, for both answers of a pair, got {getattr(self, name)}")
        if self.use_vllm and (self.second != "policy" or self.extragradient):
            asked = "extragradient" if self.extragradient else f"second: {self.second}"
            found.append(f"use_vllm: {asked} samples from weights that vLLM is not given; leave it out")
        return found + (self._of_half_steps() if self.extragradient else [])

    def _of_half_steps(self) -> list[str]:
        found = []
        if self.second != "policy":
            found.append(f"extragradient: both answers are the policy's, got second={self.second!r}")
        if self.fp16:
            found.append("fp16: the scale of the loss is not put back after a half step; use bf16")
        if self._sharded():
            found.append("extragradient: weights and optimizer are kept whole and put back, which DeepSpeed and FSDP shard; "
                         "use DDP")  # fmt: skip
        return found

    def _derive(self) -> None:
        super()._derive()
        if self.steps_per_generation != self.gradient_accumulation_steps:
            raise_all([
                "steps_per_generation: one generation batch is one optimizer step, so it must be "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}, got {self.steps_per_generation}; leave it out"
            ])  # fmt: skip


PRESETS: dict[str, Preset] = {
    "online_dpo": Preset("Online DPO (Guo et al. 2024), or any objective on online pairs", "2402.04792", {}),
    "online_ipo": Preset("Online IPO (Calandriello et al. 2024)", "2403.08635", {"objective": {"ipo": 1.0}}),
    "egpo": Preset(
        "Extragradient Preference Optimization (Zhou et al. 2025)",
        "2503.08942",
        {"objective": {"ipo": 1.0}, "extragradient": True},
    ),
    "nash_md": Preset(
        "Nash-MD as a policy gradient, on a mixture of tokens (Munos et al. 2023)",
        "2312.00886",
        {"objective": {NASH_MD: 1.0}, "second": "mixture"},
    ),
    "trajectory_balance": Preset(
        "Trajectory balance on two answers, in VarGrad form (Zhang et al. 2023); with prompt_weights one policy for all "
        "weights of the rewards (Jain et al. 2023)",
        "2210.12765",
        {"objective": {"trajectory_balance": 1.0}},
    ),
    "order_preserving": Preset(
        "Order-preserving target on two answers: the one that dominates is preferred (Chen and Mauch 2023)",
        "2310.00386",
        {"objective": {"sigmoid": 1.0}, "preferred_by": "dominance"},
    ),
    "xpo": Preset(
        "Exploratory Preference Optimization (Xie et al. 2024)",
        "2405.21046",
        {"objective": {"sigmoid": 1.0}, "second": "reference"},
    ),
}
"""By the name that a recipe's `method` gives it."""
