"""Shares prompts among the completions of GRPO and RLOO: TRL's trainers with one scoring call in another way."""

import warnings
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset, IterableDataset
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
from trl import GRPOTrainer as TRLGRPOTrainer
from trl import RLOOConfig as TRLRLOOConfig
from trl import RLOOTrainer as TRLRLOOTrainer
from trl.trainer.grpo_trainer import EnvironmentFactory, RewardFunc, RolloutFunc

from align.configs import GRPOConfig, RLOOConfig
from align.data.rows.explicit import explicit
from align.models.stopping import stop_ids
from align.models.use import head_in_one_product
from align.sampling.drawing import two_uniforms
from align.sampling.merged import adapters_merged, merged_one_by_one
from align.sampling.prompt_cache import prompts_once, say_once
from align.trainers.shared.base import own_args
from align.trainers.shared.columns import check_texts, refuse_empty
from align.trainers.shared.metrics import evaluated_as, mean_of_known
from align.trainers.shared.prefix_sharing import PrefixSharing
from align.trainers.shared.reference import (
    LOOKED_AT,
    FirstStep,
    as_reference,
    copy_reference,
    refuse_without_reference,
    sharded,
)
from align.trainers.shared.safe_runs import SafeRuns
from align.trainers.shared.scored import ROWS, whole
from align.trainers.shared.trl_contract import (
    OnlineBase,
    completion_logps,
    end_answers_at,
    entropy_is_learnt,
    fast_head,
    generation_state,
    logged,
    micro_batch,
    send_to_vllm,
    set_generation_state,
    tokenizer_of,
)

from .resumed import OrderByEpoch, Window
from .rewards import RewardColumns, raise_problems


class SharedPrompts(SafeRuns, OnlineBase):
    """Sampling, the training forward and the old and reference log-probabilities of a group compute its prompt once.

    Completions share a prompt within a micro-batch. TRL shuffles the completions of a generation batch before it cuts
    that into micro-batches, so the saving is whole where one micro-batch is the generation batch of the device
    (`steps_per_generation=1`), and falls with the number of micro-batches.

    A checkpoint holds the completions that are still to be learnt from, and a resumed run goes on with them. (TRL's
    resumed run samples new ones, from a later policy.)

    Completions end where the model's answers end everywhere else (`align.models.stopping`). (TRL's go on after a token
    that only the configuration or the chat template names.)
    """

    def __init__(self, model: Any, reward_funcs: Any, args: Any, **kwargs: Any) -> None:
        self.first_step = FirstStep() if args.beta != 0.0 else None
        if args.beta != 0.0:
            refuse_without_reference(model, kwargs.get("peft_config"), type(self).__name__)
        refuse_empty(kwargs.get("train_dataset"), kwargs.get("eval_dataset"), where=type(self).__name__)
        for name, said in (("train_dataset", "train data"), ("eval_dataset", "eval data")):
            kwargs[name] = explicit(kwargs.get(name), "prompts", where=f"{type(self).__name__}: {said}")
        check_texts(args, kwargs["train_dataset"], where=type(self).__name__)
        with warnings.catch_warnings():  # what TRL calls experimental is held by our contract with it
            warnings.filterwarnings("ignore", message="You are using 'environment_factory'", category=UserWarning)
            super().__init__(model, reward_funcs, args, **kwargs)
        self.columns = RewardColumns(self.reward_funcs, self.reward_func_names)
        raise_problems(self.columns.problems())
        if self.first_step is not None:
            copy_reference(self.model)
        end_answers_at(self, stop_ids(tokenizer_of(self), self.model))
        if self.args.use_vllm and isinstance(self.model, PeftModel) and not sharded(self.accelerator):
            send_to_vllm(self, partial(merged_one_by_one, self.model))

    @cached_property
    def sharing(self) -> PrefixSharing:
        """Whether rows are packed, by model."""
        return PrefixSharing(self.args.shared_prefix, max_length=None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, with the metrics of an evaluation under the name of its set: TRL's sets all have the same names."""
        if not self.model.training:
            told: dict[str, Any] = logs
            gathered, prefix = logged(self, "eval"), evaluated_as(logs)
            told.update({f"{prefix}_{name}": mean_of_known(values) for name, values in gathered.items()})
            gathered.clear()
        super().log(logs, start_time)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's order of prompts, also in a resumed run."""
        return OrderByEpoch.of(super()._get_train_sampler(*args, **kwargs))

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's, with adapters merged, the prompt of a group run once, and tokens drawn by `align.sampling.drawing`."""
        sample = super()._generate_single_turn
        shared = self.args.shared_prefix != "off" and not self.args.use_vllm
        # Of a sharded model all processes must run the same forwards, and groups may lie differently.
        if shared and sharded(self.accelerator):
            say_once("the model is sharded")
            shared = False
        if not shared:
            return sample(prompt_ids, *args, **kwargs)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with adapters_merged(model), head_in_one_product(model), two_uniforms(model), prompts_once(model):
            return sample(prompt_ids, *args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, of functions that know whether this is training; infinite rewards are refused, silent ones told."""
        self.columns.switch(training=self.model.training)
        rewards = super()._calculate_rewards(*args, **kwargs)
        self.columns.look_at(rewards)
        return rewards

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, watched by the numerical guard."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.guard.watch(micro_batch(self, ago=1), loss)
        return loss

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL's, whose micro-batch is looked at before the first step."""
        batch = super()._prepare_inputs(generation_batch)
        first = self.first_step if self.model.training else None
        if first is not None and first.due(self) and "pixel_values" not in batch:
            self._look_at_reference(first, batch)
        return batch

    def _look_at_reference(self, first_step: FirstStep, batch: dict[str, Any]) -> None:
        """The rule of the first step, on a few completions."""
        rows = {name: batch[name][:LOOKED_AT] for name in ROWS}
        ids, mask = whole(rows)
        ended = rows["completion_mask"]

        def logps(model: Any) -> Tensor:
            return (completion_logps(self, model, ids, mask, ended.size(1)) * ended).sum(dim=1)

        def reference() -> Tensor:
            if self.ref_model is not None:
                return logps(self.ref_model)
            with as_reference(self.accelerator.unwrap_model(self.model)):
                return logps(self.model)

        inside = self.ref_model is None
        first_step.look(self, lambda: logps(self.model), reference, ended.sum(dim=1), inside=inside)

    @property
    def mode(self) -> str:
        """`train` or `eval`, by which TRL files what it logs."""
        return "train" if self.model.training else "eval"

    def save_state(self, folder: Path) -> None:
        """And the completions of this process, its micro-batches, metrics not yet logged, and what rewards remember."""
        super().save_state(folder)
        torch.save(generation_state(self), folder / f"generation_{self.args.process_index}.pt")
        self.columns.save(folder, self.args.process_index)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote.

        Raises:
            RunError: If it does not hold what a reward function remembers.
        """
        super().load_state(folder)
        path = folder / f"generation_{self.args.process_index}.pt"
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        set_generation_state(self, state)
        self.add_callback(Window(self, state["window"]))
        self.columns.load(folder, self.args.process_index)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> Any:
        images = any(
            value is not None for name, value in kwargs.items() if name not in ("batch_size", "compute_entropy")
        )
        if not images and not compute_aux_loss:
            labels = input_ids.masked_fill(attention_mask == 0, -100)
            labels[:, :-logits_to_keep] = -100
            batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
            model = self.sharing.scorer(model, batch, self.accelerator)
        if compute_aux_loss:
            kwargs["compute_aux_loss"] = True
        with fast_head(entropy_gradient=entropy_is_learnt(self)):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )


class GRPOTrainer(SharedPrompts, TRLGRPOTrainer):
    """Group Relative Policy Optimization (Shao et al. 2024, arXiv:2402.03300), as TRL's, with shared prompts.

    Where the policy calls tools, reward functions get as `completion_ids` the tokens that it wrote itself. (TRL's get what the
    tools returned, too, which rewards of length would then count.)

    Raises:
        TypeError: If `args` is not a GRPOConfig of alignkit.
    """

    config_class: ClassVar[type[GRPOConfig]] = GRPOConfig
    _written: list[list[int]] | None = None

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
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
    ) -> None:
        super().__init__(
            model, reward_funcs, own_args(self, self.config_class, args, model, peft_config), train_dataset=train_dataset,
            eval_dataset=eval_dataset, processing_class=processing_class,
            reward_processing_classes=reward_processing_classes, callbacks=callbacks, optimizers=optimizers,
            quantization_config=quantization_config, peft_config=peft_config, tools=tools,
            rollout_func=rollout_func, environment_factory=environment_factory,
        )  # fmt: skip

    def _tool_call_loop(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, of which is kept which tokens the policy wrote."""
        called = super()._tool_call_loop(*args, **kwargs)
        self._written = called[0]
        return called

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """TRL's, on the tokens that the policy wrote."""
        if self._written is not None:
            both = zip(completion_ids_list, self._written, strict=True)
            completion_ids_list = [[i for i, own in zip(ids, mask, strict=True) if own] for ids, mask in both]
            self._written = None
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)


class RLOOTrainer(SharedPrompts, TRLRLOOTrainer):
    """REINFORCE Leave-One-Out (Ahmadian et al. 2024, arXiv:2402.14740), as TRL's, with shared prompts.

    Raises:
        TypeError: If `args` is not an RLOOConfig of alignkit.
    """

    config_class: ClassVar[type[RLOOConfig]] = RLOOConfig

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc],
        args: TRLRLOOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase | None] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        super().__init__(
            model, reward_funcs, own_args(self, self.config_class, args, model, peft_config), train_dataset=train_dataset,
            eval_dataset=eval_dataset, processing_class=processing_class,
            reward_processing_classes=reward_processing_classes, callbacks=callbacks, optimizers=optimizers,
            quantization_config=quantization_config, peft_config=peft_config,
        )  # fmt: skip
