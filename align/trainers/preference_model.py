"""Trains preference and reward models: TRL's RewardTrainer with a skew-symmetric score.

Beyond TRL's documented API it is assumed that `RewardTrainer` looks at `model.config.num_labels` in its constructor only,
prepares every data set in `_prepare_dataset(dataset, processing_class, args, name)`, collates a column `margin`, puts
[chosen; rejected] on dim 0, and merges `_metrics`, which stay empty here, into the logs.
"""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import PredictionOutput
from trl import RewardConfig as TRLRewardConfig
from trl import RewardTrainer as TRLRewardTrainer

from align.configs.preference_model import PreferenceModelConfig
from align.data.prompts.polar import polar_row
from align.data.row_tokens import RewardTokens
from align.data.rows.explicit import explicit
from align.losses import Pair
from align.losses.general_preference import general_preference_loss, general_preference_scores, preference_probability
from align.models.loading import keep_quantised_weights_plain
from align.models.preference_model import HEADS, load_by_name, write_settings
from align.trainers.shared.base import LogsSums, hold_settings, own_args, refuse_changed
from align.trainers.shared.columns import refuse_empty
from align.trainers.shared.metrics import TOKENS, CountsPairs, MetricSums, Ratio, accuracy
from align.trainers.shared.safe_runs import SafeRuns
from align.trainers.shared.trl_contract import on_device, prepared_pairs

logger = logging.getLogger(__name__)


class PreferenceModelTrainer(CountsPairs, LogsSums, SafeRuns, TRLRewardTrainer):
    """A TRL RewardTrainer for embeddings of any even dimension, and for rewards, which are embeddings of dimension 1.

    The loss is -log σ((s(chosen > rejected) - margin) / τ), see `losses.general_preference`; the scales λ_k of the paper
    are 1. With dimension 1, τ = 1 and no margin the steps are TRL's.

    The head is always trained and saved, with the adapter too: the adapter's task is set to SEQ_CLS, for which PEFT keeps
    the head among its `modules_to_save`. `align.models.preference_model.load_preference_model` loads what was saved.

    Metrics are sums over examples. `margin` is s(chosen > rejected), `probability` that of the chosen answer without the
    margin of the data; a tie counts one half in `accuracy`; `rewards/*` exist for dimension 1.

    Args:
        model: From `align.models.preference_model.load_preference_base`, or a name, which is loaded as `model_init_kwargs` says
            (by default in float32) and given the head.
        args: The configuration.
        data_collator: See TRL's RewardTrainer, as for everything below.
        train_dataset: Pairs: `prompt`, `chosen`, `rejected`, as text or messages.
        eval_dataset: Likewise, or several by name.
        processing_class: The tokenizer.
        compute_metrics: Called in evaluation with what `predict` returns; there are no labels.
        callbacks: Further ones.
        optimizers: Optimizer and schedule.
        quantization_config: For loading a name.
        peft_config: Of a new adapter.

    Raises:
        TypeError: If `args` is not a `PreferenceModelConfig`.
        ValueError: If something passed would be ignored (LoRA dropout under `disable_dropout=True`, a column `margin`), the head has not as many outputs as `dimension` or is frozen, or no pair fits `max_length`.
    """

    config_class: ClassVar[type[PreferenceModelConfig]] = PreferenceModelConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "preference-model"]

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: TRLRewardConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[..., Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        where = type(self).__name__
        args = own_args(self, self.config_class, args, model, peft_config)
        refuse_empty(train_dataset, eval_dataset, where=where)
        if peft_config is not None:
            peft_config = copy.deepcopy(peft_config)
            peft_config.task_type = "SEQ_CLS"
        init: Any = args.model_init_kwargs
        if isinstance(model, str):
            quantised = {} if quantization_config is None else {"quantization_config": quantization_config}
            if quantised.keys() & dict(init or {}).keys():
                raise ValueError(f"{where}: quantization_config: given in model_init_kwargs too; give it once")
            model = load_by_name(model, dimension=args.dimension, seed=args.seed, **dict(init or {}), **quantised)
            args.model_init_kwargs = quantization_config = None  # TRL would warn that they are ignored
        if model.config.num_labels != args.dimension:
            raise ValueError(
                f"{where}: the head of the model must have dimension={args.dimension} outputs, got "
                f"{model.config.num_labels}; load it with align.models.preference_model.load_preference_base"
            )
        self.sums = MetricSums()
        with one_label(model):
            super().__init__(
                model=model,
                args=args,
                data_collator=data_collator,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                compute_metrics=compute_metrics,
                callbacks=[*(callbacks or []), self.sums],
                optimizers=optimizers,
                quantization_config=quantization_config,
                peft_config=peft_config,
            )
        args.model_init_kwargs = init
        hold_settings(self)
        keep_quantised_weights_plain(self.model)
        if not any(p.requires_grad and is_of_head(name) for name, p in self.model.named_parameters()):
            raise ValueError(
                f"{where}: the head is frozen; add it to the adapter's modules_to_save (task_type SEQ_CLS)"
            )

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """TRL's rows, of many at a time, after the template of a reference and the name of the margin; says how many are too long."""
        where = f"{type(self).__name__}: {dataset_name} data"
        dataset = explicit(dataset, "pairs", where=where)
        dataset = with_columns(dataset, args, f"{type(self).__name__}: {dataset_name}")
        if RewardTokens.takes(dataset, processing_class):
            prepared: Any = RewardTokens(processing_class, args.max_length, where).at_once(
                dataset, args.dataset_num_proc
            )
        else:
            prepared = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if isinstance(dataset, Dataset) and len(prepared) < len(dataset):
            longer = (
                f"{len(dataset) - len(prepared)} of {len(dataset)} pairs are longer than max_length={args.max_length}"
            )
            if len(prepared) == 0:
                raise ValueError(f"{type(self).__name__}: {dataset_name}: {longer}; raise it")
            logger.warning("%s: %s and are left out", dataset_name, longer)
        return prepared

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The micro-batch's share of the mean over the step's pairs, times the accumulation steps; in evaluation its own mean."""
        mask = inputs["attention_mask"]
        outputs = model(input_ids=inputs["input_ids"], attention_mask=mask, use_cache=False)
        chosen, rejected = outputs.logits.float().chunk(2)
        scores = general_preference_scores(chosen, rejected)
        losses = preference = general_preference_loss(scores, tau=self.args.tau, margin=inputs.get("margin", 0.0))
        metrics = {"margin": scores, "probability": preference_probability(scores, tau=self.args.tau)}
        if self.args.dimension == 1:
            rewards = Pair(chosen.squeeze(1), rejected.squeeze(1))
            metrics |= {"rewards/chosen": rewards.chosen, "rewards/rejected": rewards.rejected}
            if self.args.center_rewards_coefficient is not None:
                center = self.args.center_rewards_coefficient * (rewards.chosen + rewards.rejected) ** 2
                losses = preference + center
                metrics |= {"loss/preference": preference, "loss/center": center}
        metrics |= {"loss": losses, "accuracy": accuracy(Pair(scores, torch.zeros_like(scores)))}
        ones = torch.ones_like(scores)
        ratios: dict[str, Ratio] = {name: (value.detach(), ones) for name, value in metrics.items()}
        tokens = Pair(*mask.sum(dim=1).chunk(2))
        ratios[TOKENS] = (tokens.chosen + tokens.rejected, torch.zeros_like(ones))
        self.sums.hold(ratios)
        self.sums.add("train" if self.model.training else "eval", self.accelerator)
        loss = losses.sum() / (self.mean_pairs if self.model.training and self.mean_pairs else len(losses))
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, watched by the guard."""
        inputs = on_device(self, inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.guard.watch(inputs, loss)
        return loss

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, with one row for each pair: TRL's [chosen; rejected] loses rows of the last batch when it is gathered."""
        loss, outputs, labels = super().prediction_step(*args, **kwargs)
        if isinstance(outputs, Tensor):
            outputs = torch.stack(outputs.chunk(2), dim=1)
            outputs = outputs.squeeze(2) if self.args.dimension == 1 else outputs
        return loss, outputs, labels

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """The head's outputs, shape (pairs, 2) or (pairs, 2, dimension), chosen first, and the metrics of an evaluation."""
        refuse_changed(self)
        rows = prepared_pairs(self, test_dataset, metric_key_prefix)
        made = TRLRewardTrainer.predict(self, rows, ignore_keys, metric_key_prefix)
        measured = {f"{metric_key_prefix}_{name}": value for name, value in self.take_metrics("eval").items()}
        return made._replace(metrics=(made.metrics or {}) | measured)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The Trainer's, and what `load_preference_model` has to know."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            write_settings(
                output_dir or self.args.output_dir,
                self.accelerator.unwrap_model(self.model),
                dimension=self.args.dimension,
                tau=self.args.tau,
                reference_column=self.args.reference_column,
            )


def with_columns(dataset: Any, args: PreferenceModelConfig, where: str) -> Any:
    """The data with the template of `args.reference_column`, and the column of `args.margin_column` named `margin`.

    Raises:
        ValueError: If a column is missing, or there is a `margin` that would not be asked for; or as `polar_row` does.
    """
    names = dataset.column_names or list(next(iter(dataset)))
    prepared = "chosen_ids" in names
    margin, reference = args.margin_column, args.reference_column
    if "margin" in names and margin != "margin" and not (prepared and margin is not None and margin not in names):
        raise ValueError(f"{where}: there is a column 'margin'; set margin_column='margin' to use it, or remove it")
    if margin not in (None, "margin") and margin in names:
        dataset = dataset.rename_column(margin, "margin")
    elif margin is not None and "margin" not in names:
        raise ValueError(f"{where}: no column {margin!r}, which margin_column names; there are {', '.join(names)}")
    if reference is None or prepared:
        return dataset
    if reference not in names:
        raise ValueError(
            f"{where}: no column {reference!r}, which reference_column names; there are {', '.join(names)}"
        )
    parts = ["prompt", reference, "chosen", "rejected"]
    return dataset.map(polar_row, input_columns=parts, remove_columns=parts)


def is_of_head(name: str) -> bool:
    """Whether a parameter is the head itself, under PEFT or not, and no low-rank addition to it."""
    return name.removeprefix("base_model.model.").startswith(HEADS) and "lora_" not in name


@contextlib.contextmanager
def one_label(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Let TRL's constructor believe that the head has one output: it refuses others, and does nothing else with it."""
    config: Any = model.config
    before = config.id2label, config.label2id
    config.num_labels = 1
    try:
        yield
    finally:
        config.id2label, config.label2id = before
