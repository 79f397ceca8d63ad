"""Configures the online trainers, and refuses settings that contradict each other or would be ignored."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from trl import GRPOConfig as TRLGRPOConfig
from trl import RLOOConfig as TRLRLOOConfig

from align.weighting.advantages import make_estimator
from align.weighting.estimator import number_problems, one_of, within
from align.weighting.rules import RULES, WeightingRule, make_rule, rule_options

from .common import ConfigError, SharesPrompts, are_layers, not_honoured, rebalances_batches, shards_on_cpus
from .generation import generated_otherwise, unread_by_vllm
from .parts import not_weighed

_REFUSED = {
    "multi_objective_aggregation": "the estimator takes each objective by itself; choose it and its `scale`",
    "scale_rewards": "the estimator scales; set estimator_options.scale",
    "normalize_advantages": "the estimator scales; use estimator: batch",
    "reward_clip_range": "it would clip the weighted sum; clip in the reward functions",
}
"""Fields of TRL's that must keep their default, and what to do instead."""
_IGNORED = {"label_smoothing_factor": "it smooths cross-entropy, which is not the loss here"}
_OF_GRADIENTS = {"gram": "gradients", "gradient_layers": 4, "gradient_every": 1, "weighting_timing": "same_step"}
"""Fields that only rules that need gradients read, and their defaults."""


@dataclass
class OnlineConfig(SharesPrompts):
    """What the configurations of online trainers answer besides TRL's fields."""

    one_answer: ClassVar[bool] = False  # to each prompt is allowed

    def turns_dropout_off(self) -> bool:
        """See `MethodConfig.turns_dropout_off`."""
        return self._of_trl.disable_dropout

    def moves_reference(self) -> bool:
        """See `MethodConfig.moves_reference`."""
        return self._of_trl.sync_ref_model

    @property
    def _of_trl(self) -> Any:
        return self

    def problems(self) -> list[str]:
        """See `MethodConfig.problems`."""
        trl, found = self._of_trl, not_honoured(self, _IGNORED) + super().problems()
        if not 0 <= trl.beta < math.inf:
            found.append(f"beta: must be finite and not negative, got {trl.beta}")
        if not 0 < trl.temperature < math.inf:
            found.append(f"temperature: must be positive and finite, got {trl.temperature}")
        if not 0 < trl.top_p <= 1:
            found.append(f"top_p: must be in (0, 1], got {trl.top_p}")
        batch = trl.per_device_train_batch_size * (trl.steps_per_generation or trl.gradient_accumulation_steps)
        odd = batch % 2 and int(os.environ.get("WORLD_SIZE", "1")) % 2 and trl.generation_batch_size is None
        if odd and self._single():
            found.append(f"per_device_train_batch_size: an even number of completions must be generated, got {batch}")
        found += generated_otherwise(trl, self) + unread_by_vllm(self)
        return found + shards_on_cpus(self) + rebalances_batches(self)

    def _sharded(self) -> bool:
        """Whether DeepSpeed or FSDP is asked for, here or by the launch."""
        return any((self._of_trl.deepspeed, self._of_trl.fsdp, _set("ACCELERATE_USE_FSDP")))

    def _single(self) -> bool:
        return self.one_answer and self._of_trl.num_generations == 1

    def _trl_checks(self) -> None:
        """TRL's configuration refuses its own completed fields, both sizes of a generation batch, and one completion of a prompt."""
        trl, steps, single = self._of_trl, self._of_trl.steps_per_generation, self._single()
        if trl.generation_batch_size is not None and steps is not None:
            trl.steps_per_generation = None
        if single:  # its trainer does not refuse it
            trl.num_generations, trl.num_generations_eval = 2, trl.num_generations_eval or 1
        super()._trl_checks()
        if single:
            trl.num_generations = 1
        if steps not in (None, trl.steps_per_generation):
            raise ConfigError(
                f"steps_per_generation: generation_batch_size={trl.generation_batch_size} asks for "
                f"{trl.steps_per_generation}, got {steps}; give one of the two"
            )


@dataclass
class GRPOConfig(OnlineConfig, TRLGRPOConfig):
    """TRL's GRPOConfig, `shared_prefix` and `max_skipped_steps`."""


@dataclass
class RLOOConfig(OnlineConfig, TRLRLOOConfig):
    """TRL's RLOOConfig, `shared_prefix` and `max_skipped_steps`."""


@dataclass
class DynamicConfig(OnlineConfig):
    """What the configurations of trainers with several objectives share. Mixed in before TRL's.

    Raises:
        ConfigError: If a setting contradicts another or would be ignored; all at once.
    """

    weighting: str = field(
        default="upgrad",
        metadata={
            "help": "Rule that weighs the objectives; `align.weighting` lists them. 'fixed' keeps reward_weights."
        },
    )
    weighting_options: dict[str, Any] | str | None = field(
        default_factory=dict, metadata={"help": "Options of the rule, by name."}
    )
    estimator: str = field(
        default="group",
        metadata={
            "help": "What makes advantages of rewards, objective by objective: group, leave_one_out, batch, stratified, "
            "single_stream or pareto_rank."
        },
    )
    estimator_options: dict[str, Any] | str | None = field(
        default_factory=dict, metadata={"help": "Options of the estimator, by name."}
    )
    manifold: bool = field(
        default=False, metadata={"help": "Mix an adapter for each objective by dirichlet's weights; `fronts` set it."}
    )
    gram: Literal["gradients", "advantages"] = field(
        default="gradients",
        metadata={
            "help": "What a rule that needs gradients is given: inner products of the objectives' gradients, or of their "
            "advantages, which cost no backward pass."
        },
    )
    gradient_layers: int | str | None = field(
        default=4,
        metadata={"help": "Gradients are of so many last layers, of 'all' parameters, or of layers '10-25', from 0."},
    )
    gradient_every: int = field(
        default=1,
        metadata={"help": "A rule that needs gradients is updated at every so many-th generation batch."},
    )
    weighting_timing: Literal["same_step", "lagged"] = field(
        default="same_step",
        metadata={"help": "Whether a rule that needs gradients weighs the batch they are of, or the one after."},
    )

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        found = not_honoured(self, _REFUSED) + self._of_weighting() + self._of_estimator()
        if self.manifold and (self.weighting != "dirichlet" or getattr(self, "use_vllm", False)):
            found.append(
                "manifold: mixes adapters by drawn weights in each step; use weighting: dirichlet, without vLLM"
            )
        if self.gram not in ("gradients", "advantages"):
            found.append(f"gram: must be 'gradients' or 'advantages', got {self.gram!r}")
        if not are_layers(layers := self.gradient_layers):
            found.append(f"gradient_layers: must be a whole number from 1, 'all', or FIRST-LAST, got {layers!r}")
        if self.gradient_every < 1:
            found.append(f"gradient_every: must be at least 1, got {self.gradient_every}")
        if self.weighting_timing not in ("same_step", "lagged"):
            found.append(f"weighting_timing: must be 'same_step' or 'lagged', got {self.weighting_timing!r}")
        if not self._weights_can_be_meant():
            weights = self._of_trl.reward_weights
            found.append(f"reward_weights: must be finite, not negative and not all 0, got {weights}")
        return found + super().problems()

    def problems_with(self, rule: WeightingRule | type[WeightingRule]) -> list[str]:
        """What keeps a rule (or its class) from working under these settings."""
        found = []
        if rule.needs != "gradients":
            for name, default in _OF_GRADIENTS.items():
                if getattr(self, name) != default:
                    found.append(f"{name}: {_named(rule)} needs no gradients and would ignore it; leave it out")
            return found
        if self.estimator == "pareto_rank":
            found.append(
                f"estimator: 'pareto_rank' has one advantage for all objectives; {_named(rule)} needs one for each"
            )
        if self.gram != "gradients":
            if self.gradient_layers != _OF_GRADIENTS["gradient_layers"]:
                found.append("gradient_layers: gram 'advantages' needs no backward pass and ignores it; leave it out")
            for asked, what in (("split", "halves"), ("as_published", "norms")):
                if getattr(rule, asked, False):
                    found.append(f"gram: 'advantages' has no {what}, which {_named(rule)} asks for; use 'gradients'")
            return found
        found += not_weighed(self, _named(rule))
        zero3 = getattr(getattr(self, "deepspeed_plugin", None), "zero_stage", 0) == 3
        sharded = "DeepSpeed ZeRO-3" if zero3 else "FSDP" if self._of_trl.fsdp or _set("ACCELERATE_USE_FSDP") else None
        if sharded:
            found.append(
                f"weighting: {_named(rule)} needs gradients of whole parameters, which {sharded} shards; use DDP or ZeRO-2, "
                "gram: advantages, or a rule that needs rewards only"
            )
        if getattr(self, "use_adaptive_entropy", False):
            found.append(
                f"use_adaptive_entropy: {_named(rule)} computes the loss more often, and each time moves the coefficient; "
                "use entropy_coef"
            )
        if (self._of_trl.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            found.append(
                f"gradient_checkpointing_kwargs: {_named(rule)} needs use_reentrant: false; reentrant checkpoints know only "
                "backward()"
            )
        prompts = (self._of_trl.generation_batch_size or 0) // (self._of_trl.num_generations or 1)
        if getattr(rule, "split", False) is True and prompts == 1:
            found.append(
                f"generation_batch_size: {_named(rule)} compares two halves of the prompts; there is one prompt"
            )
        return found

    def _weights_can_be_meant(self) -> bool:
        weights = self._of_trl.reward_weights
        return weights is None or (all(0 <= w < math.inf for w in weights) and sum(weights) > 0)

    def _of_weighting(self) -> list[str]:
        if not isinstance(self.weighting_options, dict):
            return [f"weighting_options: must be options by name, got {self.weighting_options!r}"]
        try:
            rule = RULES[one_of("weighting", self.weighting, *RULES)]
            for option in self.weighting_options:
                one_of("weighting_options", option, *rule_options(self.weighting))
            if self._of_trl.reward_weights is not None and self._weights_can_be_meant():
                make_rule(self.weighting, base=self._of_trl.reward_weights, **self.weighting_options)
        except (ValueError, TypeError) as error:
            return [_line("weighting_options", error)]
        return self.problems_with(rule)

    def _of_estimator(self) -> list[str]:
        if not isinstance(self.estimator_options, dict):
            return [f"estimator_options: must be options by name, got {self.estimator_options!r}"]
        try:
            estimator = make_estimator(self.estimator, **self.estimator_options)
        except (ValueError, TypeError) as error:
            return [_line("estimator_options", error)]
        answers = self._of_trl.num_generations
        ordered = getattr(estimator, "draws", False) and not self._of_trl.shuffle_dataset
        return ordered * [
            "shuffle_dataset: false keeps the order of the data, and prompts: 'uncertain' draws them anew for each batch; leave one "
            "of them out"
        ] + number_problems(self.estimator, estimator, answers, one_allowed=self.one_answer)


@dataclass
class DynamicGRPOConfig(DynamicConfig, GRPOConfig):
    """Settings of `align.DynamicGRPOTrainer`: GRPOConfig's and those of weights that move."""

    token_share: float = field(
        default=1.0,
        metadata={"help": "Share of the tokens that are learnt from, drawn anew for each generation batch (S-GRPO)."},
    )
    token_prefix: int = field(
        default=0, metadata={"help": "So many first tokens of a completion are learnt from always; with token_share."}
    )

    def problems(self) -> list[str]:
        """See `DynamicConfig.problems`."""
        found = super().problems()
        try:
            within("token_share", self.token_share, "(0, 1]")
        except ValueError as error:
            found.append(str(error))
        if self.token_prefix < 0 or (self.token_prefix > 0 and self.token_share == 1.0):
            found.append(f"token_prefix: must be 0, or positive with a token_share below 1, got {self.token_prefix}")
        return found


@dataclass
class DynamicRLOOConfig(DynamicConfig, RLOOConfig):
    """Settings of `align.DynamicRLOOTrainer`: RLOOConfig's and those of weights that move."""

    estimator: str = field(default="leave_one_out", metadata={"help": "As of DynamicGRPOConfig."})


@dataclass
class ReinforceConfig(DynamicGRPOConfig):
    """Settings of `align.ReinforceTrainer`: one completion of each prompt, against a baseline.

    The default estimator is REINFORCE++'s; `estimator_options: {baseline: running, scale: none}` is plain REINFORCE. The
    loss is divided by a constant, not by the lengths of completions, so that its gradient is the policy gradient's.
    """

    one_answer: ClassVar[bool] = True
    num_generations: int | None = field(default=1, metadata={"help": "Completions of each prompt."})
    estimator: str = field(default="batch", metadata={"help": "As of DynamicGRPOConfig."})
    loss_type: str = field(default="dr_grpo", metadata={"help": "As of DynamicGRPOConfig."})


def _named(rule: Any) -> str:
    return getattr(rule, "__name__", type(rule).__name__)


def _set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def _line(name: str, error: Exception) -> str:
    text = str(error).splitlines()[0]
    return text if text.startswith(name.partition("_")[0]) else f"{name}: {text}"
