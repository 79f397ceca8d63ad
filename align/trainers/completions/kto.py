"""Trains on single answers that are labelled desirable or not: TRL's KTOTrainer with a step's exact baseline."""

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from peft import PeftConfig
from torch import Tensor, nn
from trl import KTOTrainer as TRLKTOTrainer

from align.configs.kto import KTOConfig
from align.data.audit.labels import label_balance
from align.data.audit.truncation import say_left_out
from align.data.row_tokens import LabelledTokens
from align.data.rows.explicit import explicit
from align.losses.preference import sequence_logps
from align.losses.unpaired import class_weights, kto_baseline, kto_loss
from align.models.loading import keep_quantised_weights_plain
from align.trainers.completions.labelled import LABELS, MISMATCHED, both_labels, check_labels, with_mismatched
from align.trainers.shared.base import LogsSums, own_args
from align.trainers.shared.columns import refuse_empty
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.metrics import TOKENS, MetricSums, Ratio
from align.trainers.shared.precompute import MASKED, Answers, with_reference
from align.trainers.shared.reference import ANOTHER, LOOKED_AT, FirstStep, refuse_without_reference, settle_reference
from align.trainers.shared.safe_runs import SafeRuns
from align.trainers.shared.scored import COLUMN
from align.trainers.shared.trl_contract import fast_head, has_images, on_device

logger = logging.getLogger(__name__)

WEIGHT = COLUMN + "weight"
"""What the loss of each row of a batch is multiplied with, where a method weighs rows."""


def _parts(prefixes: tuple[str, ...]) -> Answers:
    """The answers of a row, by how their entries of a batch begin."""
    columns = tuple(f"ref_{prefix}logps" for prefix in prefixes)
    return Answers(columns, lambda batch: [tuple(batch[prefix + name] for name in MASKED) for prefix in prefixes])


OWN, MATCHED = _parts(("",)), _parts(("", "KL_"))


class KTOTrainer(LogsSums, SafeRuns, TRLKTOTrainer):
    """Kahneman-Tversky Optimization. Construct and use it as TRL's, on rows of prompt, completion and label, or on pairs.

    The baseline z and the mean of the loss are those of the whole optimizer step, over all its micro-batches and
    processes, and in evaluation those of the whole set: how rows are cut into batches changes nothing. TRL's z is that of
    a micro-batch. An answer's mismatched one comes from the same step. Rows are shuffled before (`shuffle_rows`): TRL
    makes runs of only desirable and only undesirable rows out of pairs. Metrics are sums over rows.

    The reference is the model without its adapter, or `ref_model`; precomputed log-probabilities come from the store that
    pairs have, too.

    Raises:
        TypeError: If `args` is not a KTOConfig.
        ValueError: If something passed would be ignored (`compute_metrics`, images, the auxiliary loss of a mixture of
            experts), a label is neither true nor false, or `class_weights` finds rows of one label alone.
    """

    config_class: ClassVar[type[KTOConfig]] = KTOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "kto"]
    _name = "KTO"
    baseline_metric: ClassVar[str] = "kto/baseline"
    """What the point is called that rewards are reckoned from, in metrics."""
    looks_at: ClassVar[str] = "KL_"
    """How columns of the rows that make the baseline begin: of mismatched ones so, of the rows themselves with nothing."""
    loss_is_scaled_for_ga = True
    ref_model: Any

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: Any = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        where = type(self).__name__
        args = own_args(self, self.config_class, args, model, peft_config)
        if compute_metrics is not None:
            raise ValueError(f"{where}: compute_metrics would need full logits, which are never built; use `evaluate`")
        refuse_empty(train_dataset, eval_dataset, where=where)
        if ref_model is None:
            refuse_without_reference(model, peft_config, where, ANOTHER)
        self.first_step = FirstStep(ANOTHER) if ref_model is None else None
        self.copies_reference = ref_model is None
        self.sums = MetricSums()
        self._in_step: tuple[Tensor, Tensor] | None = None
        self._of_set: Tensor | None = None
        super().__init__(
            model=model, ref_model=ref_model, args=args, data_collator=data_collator, train_dataset=train_dataset,
            eval_dataset=eval_dataset, processing_class=processing_class, optimizers=optimizers,
            callbacks=[*(callbacks or []), self.sums], quantization_config=quantization_config, peft_config=peft_config,
        )  # fmt: skip
        for each in (self.model, self.ref_model):
            if each is not None:
                keep_quantised_weights_plain(each)
        settle_reference(self)
        if has_images(self):
            raise ValueError(f"{where}: images are not supported; use trl.KTOTrainer")
        if self.aux_loss_enabled:
            mixture = "the load-balancing loss of a mixture of experts is not added"
            raise ValueError(f"{where}: {mixture}; set router_aux_loss_coef=0.0 to train without it")
        if args.class_weights == "data":
            if not isinstance(self.train_dataset, Dataset):
                raise ValueError(
                    f"{where}: class_weights='data' counts labels, which streamed rows do not let; give them"
                )
            labels = self.train_dataset["label"]
            self.desirable_weight, self.undesirable_weight = class_weights(sum(labels), len(labels) - sum(labels))
        self.constructed()

    def constructed(self) -> None:
        """What a method adds once its trainer is constructed. Nothing by default."""

    def looks_first(self) -> bool:
        """Whether the baseline asks for a pass over the rows before they are learnt from."""
        return self.calculate_KL

    def baseline_of(self, total: Float[Tensor, ""], rows: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """What rewards are reckoned from, by the sum of what `looked_at` gave for a step or a set, and its number of rows."""
        return kto_baseline(total, rows)

    def baseline_of_set(self, dataloader: Any) -> Float[Tensor, ""]:
        """What rewards are reckoned from in an evaluation: the baseline of the whole set."""
        values = []
        for batch in dataloader if self.looks_first() else ():
            own = self.looked_at(self._with_reference(on_device(self, batch)))
            values.append(self.accelerator.gather_for_metrics(own))
        every = torch.cat(values) if values else torch.zeros(1, device=self.accelerator.device)
        return self.baseline_of(every.sum(), torch.tensor(float(len(every)), device=every.device))

    def losses(
        self, rewards: Float[Tensor, " rows"], desirable: Bool[Tensor, " rows"], baseline: Float[Tensor, ""]
    ) -> Float[Tensor, " rows"]:
        """The loss of each row, unreduced."""
        return kto_loss(
            rewards, desirable, baseline, desirable_weight=self.desirable_weight, undesirable_weight=self.undesirable_weight
        )  # fmt: skip

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """TRL's rows, of many at a time, in an order drawn once, each with a mismatched answer of its own step."""
        where = f"{type(self).__name__}: {dataset_name} data"
        refuse_empty(None, dataset, where=where)
        first = next(iter(dataset))
        dataset = explicit(dataset, "pairs" if "chosen" in first else "labels", where=where)
        first = next(iter(dataset))
        check_labels(dataset, first, where)
        if "chosen" in first:
            dataset = both_labels(dataset)
        if dataset_name == "train" and args.shuffle_rows and isinstance(dataset, Dataset) and "prompt_ids" not in first:
            dataset = dataset.shuffle(seed=args.seed if args.data_seed is None else args.data_seed)
        if not LabelledTokens.takes(dataset, processing_class):
            steps = copy.copy(args)
            steps.per_device_train_batch_size = args.rows_per_step()
            made: Any = super()._prepare_dataset(dataset, processing_class, steps, dataset_name)
            again = isinstance(made, Dataset) and MISMATCHED in made.column_names
            return with_mismatched(made, args.rows_per_step()) if again else made
        made = LabelledTokens(processing_class, args.max_length, where).at_once(dataset, args.dataset_num_proc)
        say_left_out(len(made), len(dataset), args.max_length, where=where)
        if dataset_name == "train":
            balance = label_balance(made["label"], where, args.label_weights(), args.weighs_labels())
            for line in (found.line() for found in balance if found.level == "warning"):
                logger.warning("%s", line)
        return with_mismatched(made, args.rows_per_step()) if self.calculate_KL else made

    def _scores(self, model: Any, inputs: dict[str, Tensor], prefix: str = "") -> Float[Tensor, " rows"]:
        """Log-probabilities of whole answers, in nats."""
        ids, attention, mask = (inputs[prefix + name] for name in ("input_ids", "attention_mask", "completion_mask"))
        with fast_head():
            outputs = model(
                input_ids=ids, attention_mask=attention, labels=ids.masked_fill(mask == 0, -100), use_cache=False,
                fused_lm_head=True,
            )  # fmt: skip
        mask = mask[:, 1:].bool()
        return sequence_logps(outputs.log_probs[:, -mask.size(1) :], mask)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """TRL's `precompute_ref_log_probs`, from the reference store."""
        keep_quantised_weights_plain(self.model)
        settle_reference(self)
        return with_reference(self, dataset, name, batch_size, MATCHED if self.calculate_KL else OWN)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """TRL's, with dropout off, through the head that sees labelled positions alone."""
        with dropout_off(self.model, self.ref_model), fast_head():
            return super().compute_ref_log_probs(model, inputs)

    def _with_reference(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch and the reference's log-probabilities of its answers, and of the mismatched ones."""
        if "ref_logps" in inputs:
            return inputs
        model = self.model if self.ref_model is None else self.ref_model
        logps, mismatched = self.compute_ref_log_probs(model, inputs)
        found = {"ref_logps": logps, "ref_KL_logps": mismatched}
        return inputs | {name: value for name, value in found.items() if value is not None}

    def looked_at(self, inputs: dict[str, Tensor]) -> Float[Tensor, " rows"]:
        """Rewards of the rows that make the baseline, in nats, without gradient or dropout."""
        with torch.no_grad(), dropout_off(self.model), self.accelerator.autocast():
            return self.beta * (self._scores(self.model, inputs, self.looks_at) - inputs[f"ref_{self.looks_at}logps"])

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The Trainer's, with the baseline of the optimizer step, and its number of rows, over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = [self._with_reference(on_device(self, batch)) for batch in batches]
        zero = torch.zeros((), device=device)
        total = sum((self.looked_at(batch).sum() for batch in batches), start=zero) if self.looks_first() else zero
        own = torch.stack([total.float(), zero + sum(len(batch["label"]) for batch in batches)])
        total, rows = self.accelerator.gather(own[None]).sum(dim=0)
        self._in_step = self.baseline_of(total, rows), rows
        return batches, items

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, with the baseline of the whole set, which is found first."""
        self._of_set = self.baseline_of_set(dataloader)
        return super().evaluation_loop(dataloader, *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's share of the optimizer step's loss; in evaluation the mean over the batch."""
        if return_outputs:
            raise ValueError(
                f"{type(self).__name__}: logits are never built; use `evaluate`, or the model itself to predict"
            )
        training = self.model.training
        inputs = self._with_reference(inputs)
        logps, desirable = self._scores(model, inputs), inputs["label"].bool()
        rewards = self.beta * (logps - inputs["ref_logps"])
        in_step = self._in_step if training else None
        baseline, rows = in_step or (self._of_set, logps.new_tensor(float(len(logps))))
        if baseline is None:
            raise ValueError(
                f"{type(self).__name__}: compute_loss belongs to a step or an evaluation, whose baseline it needs"
            )
        losses = self.losses(rewards, desirable, baseline)
        weights = inputs.get(WEIGHT)
        losses = losses if weights is None else weights * losses
        found = _metrics(losses, rewards, logps, inputs)
        found[self.baseline_metric] = (baseline * torch.ones_like(losses), torch.ones_like(losses))
        self.sums.hold(found)
        self.sums.add("train" if training else "eval", self.accelerator)
        shares = self.accelerator.num_processes if in_step else 1  # DDP takes the mean over processes
        return shares * losses.sum() / rows

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, watched by the numerical guard, and without casts of LoRA's inputs."""
        inputs = on_device(self, inputs)
        if self.first_step is not None and self.first_step.due(self):
            rows = {name: value[:LOOKED_AT] for name, value in inputs.items()}
            online = {name: value for name, value in rows.items() if not name.startswith("ref_")}
            stored = self.precompute_ref_logps
            self.first_step.look(
                self, lambda: self._scores(self.model, rows),
                lambda: self._with_reference(rows if stored else online)["ref_logps"],
                rows["completion_mask"][:, 1:].sum(dim=1), inside=self.ref_model is None and not stored,
            )  # fmt: skip
        with self.no_casts():
            loss = super().training_step(model, inputs, *args, **kwargs)
        self.guard.watch(inputs, loss)
        return loss

    def take_metrics(self, mode: str) -> dict[str, float]:
        """The metrics since the last call, and the difference of the two labels' mean rewards."""
        metrics = super().take_metrics(mode)
        sides = [metrics[key] for side in LABELS if (key := f"rewards/{side}") in metrics]
        if len(sides) == 2:
            metrics["rewards/margins"] = sides[0] - sides[1]
        return metrics


def _metrics(losses: Tensor, rewards: Tensor, logps: Tensor, inputs: dict[str, Any]) -> dict[str, Ratio]:
    """Metrics of one batch as (numerator, denominator) per row; those of a side are over the rows with its label."""
    each, read = torch.ones_like(losses), inputs["attention_mask"].sum(dim=1).to(losses.dtype)
    found = {"loss": (losses.detach(), each), TOKENS: (read, 0 * each)}
    found["length"] = (inputs["completion_mask"].sum(dim=1).to(losses.dtype), each)
    for name, label in LABELS.items():
        of = (inputs["label"].bool() == label).to(losses.dtype)
        found |= {f"rewards/{name}": (rewards.detach() * of, of), f"logps/{name}": (logps.detach() * of, of)}
        if WEIGHT in inputs:
            found[f"weight/{name}"] = (inputs[WEIGHT] * of, of)
    return found
