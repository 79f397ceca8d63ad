"""Trains on completions: TRL's SFTTrainer with a weighted sum of objectives in place of its loss."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from trl import SFTConfig as TRLSFTConfig
from trl import SFTTrainer as TRLSFTTrainer

from align.configs.supervised import SupervisedConfig
from align.data import Rows
from align.data.as_read import AsRead, CompletionsAsRead, is_as_read
from align.data.audit.truncation import say_left_out
from align.data.row_tokens import CompletionTokens
from align.data.rows.explicit import explicit
from align.data.rows.tables import counts, slices
from align.losses.preference import Batch
from align.losses.token_objectives import OBJECTIVES, CompletionBatch, token_losses
from align.models.loading import keep_quantised_weights_plain
from align.runs.parts import read_part
from align.scoring.batching import SeededLengthSampler
from align.trainers.shared.base import LogsSums, own_args
from align.trainers.shared.columns import WithColumns, columns_of, refuse_empty
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.metrics import MetricSums, Ratio
from align.trainers.shared.reference import LOOKED_AT, FirstStep, as_reference, refuse_without_reference
from align.trainers.shared.safe_runs import SafeRuns
from align.trainers.shared.scored import backbone_of, frozen_head, without_columns
from align.trainers.shared.trl_contract import has_images, keep_columns, on_device

from .scoring import (
    Scored,
    check_columns,
    completion_metrics,
    freeze_reference,
    score,
    summed,
)
from .values import VALUES, ValueHead


class SupervisedTrainer(LogsSums, SafeRuns, TRLSFTTrainer):
    """A TRL SFTTrainer whose loss is `args.objective`, a weighted sum of the objectives of `losses.token_objectives`.

    Construct and use it as TRL's, on rows of prompt and completion. Objectives that are sums over tokens are divided by
    the tokens of the optimizer step, over all its micro-batches and processes, those that judge a completion as a whole
    by its completions: how a step is cut up changes nothing. Metrics are sums over examples (`nll` and other rates per
    token), and each named eval set has its own keys.

    The reference is the model without its adapter; where training starts from a trained adapter, it is a frozen copy of
    that.

    `awr` has a value head on the last hidden states, in which it has no gradient (`values.ValueHead`). Its squared errors
    are added to the loss that is logged, as `loss/value`.

    Raises:
        TypeError: If `args` is not a SupervisedConfig.
        ValueError: If something passed would be ignored (`compute_metrics`, images, the auxiliary loss of a mixture of
            experts), a column that the objective reads is missing, or the reference it needs cannot be had.
    """

    config_class: ClassVar[type[SupervisedConfig]] = SupervisedConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "supervised"]
    _name = "Supervised"
    loss_is_scaled_for_ga = True
    own_rows: ClassVar[Rows] = "completions"
    as_read: ClassVar[type[AsRead] | None] = CompletionsAsRead
    """What may make the tokens of rows as they are read (`align.data.as_read`)."""
    further_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of numbers that a method reads besides its objectives."""

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: TRLSFTConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        where = type(self).__name__
        args = own_args(self, self.config_class, args, model)
        if compute_metrics is not None:
            raise ValueError(f"{where}: compute_metrics would need full logits, which are never built; use `evaluate`")
        refuse_empty(train_dataset, eval_dataset, where=where)
        given = "ref" in getattr(model, "peft_config", {})
        self.first_step = FirstStep() if args.needs_reference() and not given else None
        if args.needs_reference():
            refuse_without_reference(model, peft_config, where)
            freeze_reference(model, peft_config, where)
        self.objective, self.columns, self.sums = args.active(), (*args.columns(), *self.further_columns), MetricSums()
        self._in_step: Tensor | None = None
        self._tokenizes_rows = False
        if not args.assistant_only_loss:  # which learns every answer, where a completion is the last
            train_dataset = explicit(train_dataset, self.own_rows, where=f"{where}: train data")
            eval_dataset = explicit(eval_dataset, self.own_rows, where=f"{where}: eval data")
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=[*(callbacks or []), self.sums],
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        if self._tokenizes_rows:  # of which TRL has seen no prompt
            self.completion_only_loss = True
        keep_quantised_weights_plain(self.model)
        if has_images(self):
            raise ValueError(f"{where}: images are not supported; use trl.SFTTrainer")
        if self.aux_loss_enabled:
            raise ValueError(
                f"{where}: the load-balancing loss of a mixture of experts is not added; "
                "set router_aux_loss_coef=0.0 to train without it"
            )
        if self.columns:
            self.data_collator = WithColumns(self.data_collator, self.columns)
        self.head = frozen_head(self.model, where, "'ref_kl'") if "ref_kl" in self.objective else None
        self.values = ValueHead(self) if args.needs_values() else None
        self.constructed()

    def constructed(self) -> None:
        """What a method adds once its trainer is constructed. Nothing by default."""

    def objectives(
        self, policy: Scored, ref: Scored | None, columns: dict[str, Batch]
    ) -> tuple[dict[str, Batch], dict[str, Ratio]]:
        """The value of every active objective, unweighted, and what is measured of them. All per row."""
        batch = CompletionBatch(policy.token_logps, policy.mask, columns, hidden=policy.hidden, head=self.head)
        if self.values is not None:
            batch = batch._replace(values=self.values(policy))
        if ref is not None:
            batch = batch._replace(ref_token_logps=ref.token_logps, ref_hidden=ref.hidden)
        return token_losses(batch, self.objective, vars(self.args))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's share of the optimizer step's loss; in evaluation the batch is the step."""
        if return_outputs:
            raise ValueError(
                "SupervisedTrainer: logits are never built; use `evaluate`, or the model itself to predict"
            )
        training = self.model.training
        columns, fed = columns_of(inputs, self.columns), without_columns(inputs)
        backbone = None if self.head is None and self.values is None else backbone_of(self.model)
        ref = self._reference(fed, backbone) if self.args.needs_reference() else None
        policy = score(model, fed, backbone)
        losses, seen = self.objectives(policy, ref, columns)
        tokens = policy.mask.sum(dim=1).to(policy.token_logps.dtype)
        units = {"token": tokens, "sequence": torch.ones_like(tokens)}
        whole, processes = {name: count.sum() for name, count in units.items()}, 1
        if training and self._in_step is not None:  # DDP takes the mean over processes of shares of one sum
            whole = dict(zip(units, self._in_step, strict=True))
            processes = self.accelerator.num_processes
        addends = {f"loss/{n}": (self.objective[n] * v, units[OBJECTIVES[n].per]) for n, v in losses.items()}
        beside: Tensor | float = 0.0
        if self.values is not None:
            returns = columns["reward"][policy.mask.nonzero()[:, 0]]
            errors = self.values.learn(policy, returns, whole["token"], training=training)
            addends["loss/value"] = errors, tokens
            beside = errors.sum() / whole["token"].clamp(min=1)  # for the guard: it has no gradient
        self.sums.hold(completion_metrics(policy, inputs, addends | seen))
        self.sums.add("train" if training else "eval", self.accelerator)
        shares = (
            self.objective[name] * value.sum() / whole[OBJECTIVES[name].per].clamp(min=1)
            for name, value in losses.items()
        )
        return processes * (sum(shares) + beside)

    def _reference(self, inputs: dict[str, Tensor], backbone: nn.Module | None) -> Scored:
        """The same completions under the reference, which never has dropout."""
        policy = self.accelerator.unwrap_model(self.model)
        with torch.no_grad(), dropout_off(self.model), as_reference(policy), self.accelerator.autocast():
            return score(self.model, inputs, backbone)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The Trainer's, counting the tokens and completions of the optimizer step over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        labels = [batch["labels"] for batch in batches]
        own = [sum(int((each[:, 1:] != -100).sum()) for each in labels), sum(map(len, labels))]
        self._in_step = self.accelerator.gather(torch.tensor([own], device=device)).sum(dim=0)
        return batches, items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, watched by the numerical guard, and without casts of LoRA's inputs."""
        inputs = on_device(self, inputs)
        if self.first_step is not None and self.first_step.due(self):
            count = len(inputs["labels"])  # packed, all rows are one, and some values are of the whole
            rows = {
                name: value[:LOOKED_AT] if isinstance(value, Tensor) and len(value) == count else value
                for name, value in without_columns(inputs).items()
            }
            tokens = (rows["labels"][:, 1:] != -100).sum(dim=1)
            policy, ref = (lambda: summed(score(model, rows))), (lambda: summed(self._reference(rows, None)))
            self.first_step.look(self, policy, ref, tokens)
        with self.no_casts():
            loss = super().training_step(model, inputs, *args, **kwargs)
        self.guard.watch(inputs, loss)
        return loss

    def step_was_skipped(self) -> None:
        """Neither its metrics are logged, nor does the value head learn from it."""
        super().step_was_skipped()
        if self.values is not None:
            self.values.forget()

    def save_state(self, folder: Path) -> None:
        """And the value head, with its optimizer."""
        super().save_state(folder)
        if self.values is not None and self.accelerator.is_main_process:
            torch.save(self.values.state_dict(), folder / VALUES)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote.

        Raises:
            RunError: If no run with a value head wrote the checkpoint.
        """
        super().load_state(folder)
        if self.values is not None:
            self.values.load_state_dict(read_part(folder / VALUES, "no run with a value head wrote it"))

    def take_metrics(self, mode: str) -> dict[str, float]:
        """The metrics since the last call; `loss` is the sum of its addends, which have units of their own."""
        metrics = super().take_metrics(mode)
        addends = [value for name, value in metrics.items() if name.startswith("loss/")]
        if addends:
            metrics["loss"] = sum(addends)
        return metrics

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Any:
        """TRL's rows, of many at a time, with the columns checked, and a word on those that truncation leaves without a completion.

        Rows that are tokenized as they are read stay as they are.
        """
        where = f"{type(self).__name__}: {dataset_name} data"
        check_columns(dataset, self.columns, where)
        if is_as_read(dataset):
            self._tokenizes_rows = True
            return dataset
        made: Any = dataset
        total = len(dataset) if isinstance(dataset, Dataset) else None
        if self._learns_answers_alone(dataset, processing_class, args, formatting_func):
            tokens = CompletionTokens(processing_class, None if packing else args.max_length, where)
            made = tokens.at_once(dataset, args.dataset_num_proc)
        if made is dataset or packing or args.shuffle_dataset:
            made = super()._prepare_dataset(made, processing_class, args, packing, formatting_func, dataset_name)
        if total is not None and not packing:
            say_left_out(len(made), total, args.max_length, where=where)
        return made

    def _learns_answers_alone(self, dataset: Any, processing_class: Any, args: Any, formatting_func: Any) -> bool:
        """Whether these are rows that learn all tokens of a completion and none of its prompt, by the tokenizer's own template."""
        asked = args.assistant_only_loss or formatting_func is not None or not self.completion_only_loss
        own = not asked and CompletionTokens.takes(dataset, processing_class)
        return own and self.chat_template in (None, processing_class.chat_template)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        keep_columns(self, (*self.columns, *(CompletionsAsRead.texts() if self._tokenizes_rows else ())))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The Trainer's; `group_by_length` repeats when a run resumes."""
        data = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(data, Dataset):
            return super()._get_train_sampler(train_dataset)
        lengths = [n for part in slices(data, ["input_ids"]) for n in counts(part["input_ids"]).tolist()]
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return SeededLengthSampler(size, lengths, self.args.data_seed or self.args.seed)
