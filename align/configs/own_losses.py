"""Configures methods that learn from single sampled answers by a loss of their own: T-SPMO, f-DPG and T-PPO."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from align.losses.matching import MATCHED
from align.weighting.estimator import within

from .common import not_honoured, raise_all
from .online import GRPOConfig
from .online_preference import OF_GRPOS_LOSS

_REFUSED = dict.fromkeys(OF_GRPOS_LOSS, "it belongs to GRPO's loss, which is not the loss here") | {
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}
_LAW = dict.fromkeys(
    ("top_p", "top_k", "min_p", "repetition_penalty"),
    "samples must have the policy's own law, by which they are weighed",
) | {"mask_truncated_completions": "a completion without tokens has no log-probability; raise max_completion_length"}

_WINDOWS = {
    "use_vllm": "answers that go on in the next step were not tried with vLLM",
    "use_transformers_continuous_batching": "answers that go on in the next step were not tried with it",
    "mask_truncated_completions": "an answer of max_completion_length tokens is finished, and scored as it is",
    "shared_prefix": "the answers of a batch are to different prompts, and as long as they have become",
}


@dataclass
class OwnLossConfig(GRPOConfig):
    """GRPOConfig's settings of sampling, without those of its loss."""

    reads: ClassVar[tuple[str, ...]] = ()  # of the settings of GRPO's loss
    vllm_importance_sampling_correction: bool = field(default=False, metadata={"help": "Not used by these losses."})

    def problems(self) -> list[str]:
        """See `OnlineConfig.problems`."""
        refused = {name: why for name, why in _REFUSED.items() if name not in self.reads}
        return not_honoured(self, refused, also={"router_aux_loss_coef": 0.0}) + super().problems()


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


@dataclass
class TPPOConfig(OwnLossConfig):
    """Settings of `align.TPPOTrainer` (arXiv:2506.15050): GRPOConfig's of sampling and clipping, and those of windows and values.

    There is one answer to a prompt at a time, and `per_device_train_batch_size * steps_per_generation` are under way on each
    process. With `window_length` equal to `max_completion_length` none is cut: that is PPO with generalised advantages.

    Raises:
        ConfigError: If a setting contradicts another or would be ignored; all at once.
    """

    one_answer: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("epsilon", "epsilon_high")
    not_generated: ClassVar[dict[str, str]] = dict.fromkeys(
        ("min_new_tokens", "min_length"), "each window is generated by itself, and would be held to it"
    )
    num_generations: int | None = field(default=1, metadata={"help": "One answer to a prompt."})
    shared_prefix: Literal["auto", "on", "off"] = field(default="off", metadata={"help": "Not used by this method."})
    window_length: int | None = field(
        default=None,
        metadata={
            "help": "Tokens that an answer grows by in each step, at most; by default a third of max_completion_length, "
            "rounded up."
        },
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount of a token."})
    lam: float = field(default=0.95, metadata={"help": "λ of the generalised advantages."})
    value_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate of the value head, which Adam trains apart; it stays constant."}
    )
    critic_warmup: int = field(
        default=0,
        metadata={
            "help": "So many first optimizer steps train the value head alone. It begins at 0, from which answers that are "
            "cut teach nothing."
        },
    )

    def problems(self) -> list[str]:
        """See `OnlineConfig.problems`."""
        found = not_honoured(self, _WINDOWS) + super().problems()
        intervals = {"gamma": "(0, 1]", "lam": "[0, 1]", "epsilon": "(0, 1)", "epsilon_high": "(0, inf)"}
        for name, interval in intervals.items():
            try:
                within(name, 0.5 if getattr(self, name) is None else getattr(self, name), interval)
            except ValueError as error:
                found.append(str(error))
        if not 0 < self.value_learning_rate < math.inf:
            found.append(f"value_learning_rate: must be positive and finite, got {self.value_learning_rate}")
        if self.num_generations != 1:
            found.append(f"num_generations: an answer is under way for each prompt by itself; leave it out, got "
                         f"{self.num_generations}")  # fmt: skip
        longest = self.max_completion_length
        if longest is None:
            found.append(
                "max_completion_length: missing; without it an answer that never ends keeps its place for ever"
            )
        elif self.window_length is not None and not 1 <= self.window_length <= longest:
            found.append(f"window_length: must be from 1 to max_completion_length={longest}, got {self.window_length}")
        if self.critic_warmup < 0 or (self.critic_warmup and self.fp16):
            found.append(f"critic_warmup: must not be negative, and be 0 with fp16, whose scale is found by the policy's "
                         f"gradients, got {self.critic_warmup}")  # fmt: skip
        if self._sharded():
            found.append("fsdp, deepspeed: the value head reads a whole model's states; train on replicas (DDP)")
        return found

    def _derive(self) -> None:
        super()._derive()
        if self.window_length is None and self.max_completion_length is not None:
            self.window_length = -(-self.max_completion_length // 3)
        steps, parts = self.steps_per_generation, self.gradient_accumulation_steps
        if steps is None or steps % parts:
            raise_all([f"steps_per_generation: must be a multiple of gradient_accumulation_steps={parts}, so that no optimizer "
                       f"step has two batches of windows, got {steps}"])  # fmt: skip
