"""Trains GRPO, RLOO and REINFORCE on several rewards whose weights move (arXiv:2509.11452 and others)."""

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
from align.weighting.advantages import LeaveOneOut
from align.weighting.rules import WeightingRule

from .gradients import token_mask
from .objectives import MultiObjective
from .rewards import weighted_sum
from .shared_prompts import GRPOTrainer, RLOOTrainer


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

    Its `args` are a `ReinforceConfig`, which is also its default.
    """

    config_class = ReinforceConfig
