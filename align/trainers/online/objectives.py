"""Treats rewards as objectives whose weights move while training (arXiv:2509.11452 and others)."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.errors import RunError
from align.models.gated import Gated
from align.runs.parts import read_part
from align.trainers.shared.base import hold_settings, own_args
from align.trainers.shared.metrics import evaluated_as
from align.trainers.shared.trl_contract import generated, generations, logged, micro_batch, show_advantages
from align.weighting.advantages import make_estimator
from align.weighting.rules import Statistics, Weighting, WeightingRule, make_rule

from .gradients import advantage_gram, grams, with_advantages
from .rewards import BESIDE, over_batch, raise_problems, weighted_sum
from .shared_prompts import SharedPrompts

logger = logging.getLogger(__name__)


class MultiObjective(SharedPrompts):
    """Rewards as objectives: an estimator gives each its advantages, a rule weighs them. Mixed in before the trainer.

    For each generation batch the gathered rewards (B, K) become advantages (B, K) (`align.weighting.advantages`), the
    rule sees the means, the last evaluation and, if it needs it, the Gram matrix of the objectives' gradients, and the
    trainer learns from `scale * combine(advantages, weights)`. The rule's `scale` multiplies advantages, not rewards,
    where estimators that standardise would cancel it (the paper's own code multiplies rewards, `reward_factor` here).
    All that a rule sees is the same on every process, and so are the weights.

    A reward function with an attribute `aux` is no objective: the estimator gets its values as the auxiliary column of
    that name. A reward function with `state_dict` and `load_state_dict` is saved and restored with the run; if it has an
    attribute `training`, that is false while evaluating.

    Logged for each generation batch: `weights/NAME`, `objectives/NAME` (mean raw reward), `weighting/scale` and what the
    rule adds. TRL's own metric `reward` keeps the weights that the run began with, so that it compares over time. With
    several evaluation sets, the rule sees the last.

    Args:
        model: As TRL's.
        reward_funcs: As TRL's, at least one of them an objective; their names must differ. Rewards that environments own are
            objectives after them, of which `args.reward_weights` has a weight each.
        args: `DynamicGRPOConfig`, `DynamicRLOOConfig` or `ReinforceConfig`.
        rule: A weighting rule of your own, in place of `args.weighting`.
        **kwargs: As TRL's.

    Raises:
        TypeError: If `args` is not the configuration of this trainer.
        ValueError: If the rule or the estimator cannot work with these rewards, settings or processes.
    """

    model: Any
    config_class: ClassVar[type[Any]]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: Any = None,
        *,
        rule: WeightingRule | None = None,
        **kwargs: Any,
    ) -> None:
        args = own_args(self, self.config_class, args, model)
        # The estimator may read columns that rewards return beside the objectives.
        self.estimator = make_estimator(args.estimator, **args.estimator_options)
        given = [] if reward_funcs is None else reward_funcs  # an environment may own the reward
        functions = list(given) if isinstance(given, list | tuple) else [given]
        missing = set(self.estimator.needs) - {getattr(function, "aux", None) for function in functions}
        for name in sorted(missing & set(BESIDE)):
            missing.remove(name)
            functions += BESIDE[name]
            if (classes := kwargs.get("reward_processing_classes")) is not None:
                own = classes if isinstance(classes, list) else [classes]
                kwargs["reward_processing_classes"] = [*own, *(None for _ in BESIDE[name])]
        if missing:
            raise ValueError(
                f"estimator: {args.estimator!r} needs the column {', '.join(sorted(missing))}; give a reward function "
                "that returns it and has this name as its attribute `aux`"
            )
        # TRL's own constructor, without weights.
        weights, args.reward_weights = args.reward_weights, None  # TRL's also count auxiliary columns
        try:
            super().__init__(model, functions, args, **kwargs)
        finally:
            args.reward_weights = weights
        hold_settings(self)
        # Objectives and their first weights.
        names = self.columns.objectives
        base = [1.0 / len(names) for _ in names] if weights is None else list(weights)
        if len(base) != len(names):
            raise ValueError(f"reward_weights: must be one for each objective ({', '.join(names)}), got {base}")
        # The rule that moves the weights.
        self.rule = make_rule(args.weighting, base=base, **args.weighting_options) if rule is None else rule
        problems = args.problems_with(self.rule)
        if self.estimator.after_weighting and type(self.rule).combine is not WeightingRule.combine:
            problems.append(f"estimator_options: {type(self.rule).__name__} combines advantages in its own way, which "
                            "standardise: after_weighting would ignore; leave it out")  # fmt: skip
        raise_problems(problems)
        self.reward_weights = self.columns.weights(torch.tensor(base))
        self.weighting = Weighting(torch.tensor(base))
        self.gated = Gated(self.model, len(names)) if args.manifold else None
        self.evaluation: Tensor | None = None
        self._rewards: Tensor | None = None
        self._penalty: Tensor | None = None
        self._warned_of_factor = False
        self.add_callback(_Evaluation(self))
        self._warn_of_stale_weights()
        self._begin()

    def _begin(self) -> None:
        self.estimator.begin(self.columns.objectives)

    def _warn_of_stale_weights(self) -> None:
        args = self.args
        later = args.num_iterations > 1 or args.steps_per_generation > args.gradient_accumulation_steps
        if later and type(self.rule).__name__ != "Fixed":
            logger.warning(
                "weights are computed when completions are generated, and are stale in later optimizer steps on the same "
                "completions: num_iterations=%d, steps_per_generation=%d, gradient_accumulation_steps=%d",
                args.num_iterations, args.steps_per_generation, args.gradient_accumulation_steps,
            )  # fmt: skip

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards = super()._calculate_rewards(*args, **kwargs)
        if self.model.training:
            self._rewards = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        if (
            self.gated is not None
        ):  # the rule draws from step and seed alone, so that it will draw the same for the batch
            step = Statistics(self.rule.base.new_zeros(len(self.rule.base)), self.state.global_step)
            self.gated.at(self.rule.update(step).weights if self.model.training else self.rule.base)
        output = super()._generate_and_score_completions(inputs)
        metrics = logged(self, self.mode)
        for column in self.columns.aux:
            for statistic in ("mean", "std"):
                metrics.pop(f"rewards/{self.columns.names[column]}/{statistic}", None)
        if self.model.training:
            count = output["advantages"].size(0)
            first = self.accelerator.process_index * count
            output["row"] = torch.arange(first, first + count, device=output["advantages"].device)
            self._penalty = self._kl_advantages(output["advantages"])
        return output

    def _kl_advantages(self, advantages: Float[Tensor, " rows"]) -> Float[Tensor, " batch"] | None:
        """What the trainer's own advantages have of the KL penalty, of all processes; None if the loss has it."""
        return None

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        before = generated(self)
        if self.gated is not None and self.model.training:  # after an evaluation, or a checkpoint
            self.gated.at(self.weighting.weights)
        inputs = super()._prepare_inputs(generation_batch)
        batches = generated(self)
        if not self.model.training or batches is None or batches is before:
            return inputs
        self._weigh(batches)
        return micro_batch(self, ago=0)

    def _weigh(self, batches: list[dict[str, Any]]) -> None:
        """Give a new generation batch its advantages."""
        assert self._rewards is not None
        rewards, aux = self.columns.split(self._rewards)
        means = rewards.nanmean(dim=0)
        now = self.weighting
        if self.rule.needs == "rewards":
            now = self._update(means, None, None)
        advantages = self._advantages(rewards, aux)
        if self.rule.needs == "gradients" and self._due():
            updated = self._update(means, *self._grams(batches, advantages))
            now = now if self.args.weighting_timing == "lagged" else updated
        learnt = now.scale * self._combined(rewards, advantages, now.weights)
        if self._penalty is not None:
            learnt = learnt + self._penalty
        for index, batch in enumerate(batches):
            batches[index] = with_advantages(batch, learnt[batch["row"].cpu()].to(batch["advantages"]))
        self._note(now, means, learnt)
        self._rewards = self._penalty = None

    def _combined(
        self,
        rewards: Float[Tensor, "batch objectives"],
        advantages: Float[Tensor, "batch objectives"],
        weights: Float[Tensor, " objectives"],
    ) -> Float[Tensor, " batch"]:
        if not self.estimator.after_weighting:
            learnt = self.rule.combine(advantages, weights)
            return over_batch(learnt, ~rewards.isnan().all(dim=1)) if self.estimator.scales_sum else learnt
        total = weighted_sum(rewards, weights.to(rewards))
        return self.estimator(total[:, None], group_size=self.num_generations, aux={})[:, 0]

    def _update(self, means: Tensor, gram: Tensor | None, halves: Tensor | None) -> Weighting:
        told = Statistics(means, self.state.global_step, gram, halves, self.evaluation)
        self.weighting = self.rule.update(told)
        return self.weighting

    def _advantages(
        self, rewards: Float[Tensor, "batch objectives"], aux: dict[str, Tensor]
    ) -> Float[Tensor, "batch objectives"]:
        factor = self.weighting.reward_factor
        if factor != 1.0 and self.estimator.scale_free and not self._warned_of_factor:
            self._warned_of_factor = True
            logger.warning(
                "the rule multiplies rewards by %.3g, and the estimator %r divides that out again: it has no effect; take "
                "the rule's form on advantages, or an estimator without scale", factor, self.args.estimator,
            )  # fmt: skip
        return self.estimator(rewards * factor, group_size=self.num_generations, aux=aux)

    def _due(self) -> bool:
        return generations(self) % self.args.gradient_every == 0

    def _grams(
        self, batches: list[dict[str, Any]], advantages: Float[Tensor, "batch objectives"]
    ) -> tuple[Tensor, Tensor | None]:
        if self.args.gram == "advantages":
            return advantage_gram(advantages), None
        split, as_published = (bool(getattr(self.rule, name, False)) for name in ("split", "as_published"))
        layers = self.args.gradient_layers
        return grams(self, batches, advantages, layers=layers, split=split, as_published=as_published)

    def _note(self, now: Weighting, means: Float[Tensor, " objectives"], learnt: Float[Tensor, " batch"]) -> None:
        metrics = logged(self, "train")
        for name, weight, mean in zip(self.columns.objectives, now.weights.tolist(), means.tolist(), strict=True):
            metrics[f"weights/{name}"].append(weight)
            metrics[f"objectives/{name}"].append(mean)
        for name, value in {"scale": now.scale, "reward_factor": now.reward_factor, **now.metrics}.items():
            metrics[f"weighting/{name}"].append(float(value))
        show_advantages(self, learnt.tolist())

    def save_state(self, folder: Path) -> None:
        """And rule, weights, the estimator's tables and the last evaluation."""
        super().save_state(folder)
        state = {
            "made_of": self._made_of(),
            "rule": self.rule.state_dict(),
            "weighting": self.weighting._asdict() | {"metrics": dict(self.weighting.metrics)},
            "estimator": self.estimator.state_dict(),
            "evaluation": self.evaluation,
        }
        torch.save(state, folder / f"weighting_{self.args.process_index}.pt")

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote.

        Raises:
            RunError: If the checkpoint is of other objectives, another rule or another estimator.
        """
        super().load_state(folder)
        path = folder / f"weighting_{self.args.process_index}.pt"
        state = read_part(path, "no trainer with several objectives wrote it")
        if state["made_of"] != self._made_of():
            raise RunError(
                f"{folder}: was written with rule, estimator and objectives {', '.join(state['made_of'])}, and this run "
                f"has {', '.join(self._made_of())}; resume with the same, or start anew"
            )
        self.rule.load_state_dict(state["rule"])
        self.weighting = Weighting(**state["weighting"])
        self.estimator.load_state_dict(state["estimator"])
        self.evaluation = state["evaluation"]

    def _made_of(self) -> list[str]:
        return [type(self.rule).__name__, type(self.estimator).__name__, *self.columns.objectives]


class _Evaluation(TrainerCallback):
    """Keeps the mean rewards of an evaluation for the rule; one in which an objective never applied is not kept."""

    def __init__(self, trainer: MultiObjective) -> None:
        self.trainer = trainer

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """After every evaluation set."""
        found = metrics or {}
        means = [found.get(f"{evaluated_as(found)}_rewards/{name}/mean") for name in self.trainer.columns.objectives]
        if None not in means:
            self.trainer.evaluation = torch.tensor(means, dtype=torch.float64)
