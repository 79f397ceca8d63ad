"""Trains GRPO, RLOO and REINFORCE on several rewards whose weights move (arXiv:2509.11452 and others)."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from jaxtyping import Float
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from trl import GRPOConfig as TRLGRPOConfig
from trl import RLOOConfig as TRLRLOOConfig
from trl.trainer.grpo_trainer import EnvironmentFactory, RewardFunc, RolloutFunc

from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig, ReinforceConfig
from align.trainers.shared.columns import image_columns
from align.trainers.shared.trl_contract import generations, logged
from align.weighting.advantages import LeaveOneOut
from align.weighting.rules import WeightingRule
from align.weighting.single_stream import SingleStream, check_initial, prompt_number

from .gradients import token_mask
from .objectives import MultiObjective
from .rewards import weighted_sum
from .shared_prompts import GRPOTrainer, RLOOTrainer
from .streams.draws import UncertainPrompts
from .streams.drift import drift

logger = logging.getLogger(__name__)


class DynamicGRPOTrainer(MultiObjective, GRPOTrainer):
    """GRPO (arXiv:2402.03300) whose weights of objectives move. The KL penalty stays in the loss, unweighted.

    With `tools` or an `environment_factory` the policy calls tools while it answers (see TRL). A reward that an environment owns
    is one more objective, after those of `reward_funcs`, which may then be left out; it is named after the environment's class,
    and rows of other environments have none.
    """

    args: DynamicGRPOConfig
    config_class = DynamicGRPOConfig

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc] | tuple[RewardFunc, ...] | None = None,
        args: TRLGRPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase | None] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
        tools: list[Callable[..., Any]] | None = None,
        rollout_func: RolloutFunc | None = None,
        environment_factory: EnvironmentFactory | dict[str, EnvironmentFactory] | None = None,
        *,
        rule: WeightingRule | None = None,
    ) -> None:
        super().__init__(
            model, reward_funcs, args, train_dataset=train_dataset, eval_dataset=eval_dataset,
            processing_class=processing_class, reward_processing_classes=reward_processing_classes,
            callbacks=callbacks, optimizers=optimizers, quantization_config=quantization_config,
            peft_config=peft_config, tools=tools, rollout_func=rollout_func,
            environment_factory=environment_factory, rule=rule,
        )  # fmt: skip

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.model.training and self.args.token_share < 1.0:
            mask, args = output["completion_mask"], self.args
            output["token_mask"] = token_mask(mask, always=args.token_prefix, share=args.token_share)
        return output


class DynamicRLOOTrainer(MultiObjective, RLOOTrainer):
    """RLOO (arXiv:2402.14740) whose weights of objectives move.

    RLOO has the KL penalty in the reward. Its part of TRL's advantages is what they have beyond the leave-one-out
    advantages of the weighted rewards; it is added to ours, not weighted and not scaled.
    """

    args: DynamicRLOOConfig
    config_class = DynamicRLOOConfig

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc] | tuple[RewardFunc, ...],
        args: TRLRLOOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase | None] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
        *,
        rule: WeightingRule | None = None,
    ) -> None:
        super().__init__(
            model, reward_funcs, args, train_dataset=train_dataset, eval_dataset=eval_dataset,
            processing_class=processing_class, reward_processing_classes=reward_processing_classes,
            callbacks=callbacks, optimizers=optimizers, quantization_config=quantization_config,
            peft_config=peft_config, rule=rule,
        )  # fmt: skip

    def _kl_advantages(self, advantages: Float[Tensor, " rows"]) -> Float[Tensor, " batch"] | None:
        if self.args.beta == 0.0:
            return None
        assert self._rewards is not None
        table = self._rewards.double().cpu()
        total = weighted_sum(table, self.reward_weights)
        ours = LeaveOneOut()(total[:, None], group_size=self.num_generations, aux={})[:, 0]
        gathered: Any = self.accelerator.gather(advantages)
        scored = ~table[:, self.columns.columns].isnan().all(dim=1)
        return (gathered.double().cpu() - ours).where(scored, 0.0)


class ReinforceTrainer(DynamicGRPOTrainer):
    """REINFORCE (Williams 1992) with one completion of each prompt and a baseline, or REINFORCE++ (arXiv:2501.03262).

    Its `args` are a `ReinforceConfig`, which is also its default. With `estimator: single_stream` it draws prompts and measures the
    policy's drift, where the estimator's options ask for that; the mean of the latter is logged as `drift`.
    """

    config_class = ReinforceConfig

    def _begin(self) -> None:
        super()._begin()
        stream = self.estimator if isinstance(self.estimator, SingleStream) else None
        if stream is not None:
            told = check_initial(self.train_dataset, stream)
            if told is not None:
                logger.warning("%s", told)
        self._drawing = (
            UncertainPrompts(self.train_dataset, stream, self.args.seed) if stream and stream.draws else None
        )
        self._measuring = stream if stream and stream.reads_drift else None
        if self._measuring and image_columns(self.train_dataset):
            raise ValueError("estimator_options: rho: 'kl' keeps texts alone, and the data have images; give a number")
        self._drift: Tensor | None = None

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        if self._drawing is not None and self.model.training:
            inputs = self._drawing.rows(inputs, generations(self), self.accelerator)
        output = super()._generate_and_score_completions(inputs)
        if self._measuring is not None and self.model.training:
            numbers = [prompt_number(row["prompt"]) for row in inputs]
            self._drift = drift(self, self._measuring, numbers, output)
            logged(self, "train")["drift"].append(float(self._drift.mean()))
        return output

    def _advantages(
        self, rewards: Float[Tensor, "batch objectives"], aux: dict[str, Tensor]
    ) -> Float[Tensor, "batch objectives"]:
        return super()._advantages(rewards, aux if self._drift is None else aux | {"drift": self._drift})
