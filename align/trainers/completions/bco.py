"""Trains a binary classifier of labelled answers: KTO's rows and steps, with BCO's loss and its running shift of rewards."""

import contextlib
from typing import Any, ClassVar

import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor

from align.configs.bco import REFERENCE, BCOConfig
from align.losses.unpaired import bco_loss
from align.rewards.relevance import sentence_embeddings
from align.scoring.density_ratio import DensityRatio, fitted, prompt_embeddings
from align.trainers.shared.columns import WithColumns
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.metrics import StepMemory
from align.trainers.shared.reference import as_reference
from align.trainers.shared.scored import backbone_of
from align.trainers.shared.trl_contract import keep_columns

from .kto import KTOTrainer

COLUMN = "weight"


class RunningShift(StepMemory):
    """δ, the mean reward of all rows of all steps so far, in nats."""

    kept = ("total", "rows")

    def __init__(self) -> None:
        self.total, self.rows = 0.0, 0.0

    def add(self, total: float, rows: float) -> None:
        """Count the rows of a step, over all processes, by the sum of their rewards."""
        self.begin_step()
        self.total, self.rows = self.total + total, self.rows + rows

    @property
    def mean(self) -> float:
        """0 before the first step."""
        return self.total / self.rows if self.rows else 0.0


class BCOTrainer(KTOTrainer):
    """Binary Classifier Optimization. Construct and use it as `KTOTrainer`, on the same rows.

    The shift δ is the mean reward of all rows of all optimizer steps so far, those of the step itself included: it is
    updated once a step, before the step, over all micro-batches and processes, in a pass of the policy without gradient
    or dropout. A checkpoint keeps it. An evaluation takes it as it is and leaves it so. A step that is skipped does not
    count. TRL's trainer, which 1.16 no longer has, updated it with every micro-batch, by the mean of the batch; rows
    count here, so that a smaller last batch counts for less.

    With `args.prompt_encoder` the loss of an undesirable row is multiplied by the density ratio of its prompt, from a
    classifier of the training prompts that is fitted once, before the first step (`scoring.density_ratio`); evaluation
    sets are weighed by the same. All rows make the classifier; TRL's drew some of each label with replacement. δ is the
    mean of unweighted rewards, as there.

    Raises:
        TypeError: If `args` is not a BCOConfig.
        ValueError: As `KTOTrainer`; or if an encoder is given and the training rows are streamed, or have one label alone.
    """

    config_class = BCOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "bco"]
    _name = "BCO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Binary Classifier Optimization for Large Language Model Alignment",
        "id": "2404.04656",
    }
    baseline_metric: ClassVar[str] = "bco/shift"
    looks_at: ClassVar[str] = ""

    density_ratio: DensityRatio | None = None

    def constructed(self) -> None:
        """Keep the shift in checkpoints; with an encoder, weigh the rows."""
        self.shift = RunningShift()
        self.add_callback(self.shift)
        if self.args.prompt_encoder is None:
            return
        if not isinstance(self.train_dataset, Dataset):
            raise ValueError(f"{type(self).__name__}: prompt_encoder reads all prompts, which streamed rows do not let")
        self.data_collator = WithColumns(self.data_collator, (COLUMN,))
        desirable = torch.tensor(self.train_dataset["label"], dtype=torch.bool)
        self.density_ratio = fitted(self._embedded(self.train_dataset), desirable)
        self.train_dataset = self._weighed(self.train_dataset)
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {name: self._weighed(data) for name, data in self.eval_dataset.items()}
        elif self.eval_dataset is not None:
            self.eval_dataset = self._weighed(self.eval_dataset)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        """KTO's; sets that are evaluated later are weighed, too."""
        made = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        return made if self.density_ratio is None else self._weighed(made)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.args.prompt_encoder is not None:
            keep_columns(self, (COLUMN,))

    def _weighed(self, data: Any) -> Any:
        """Rows with the column that their loss is multiplied with: 1 where the label is true."""
        if self.density_ratio is None or not isinstance(data, Dataset):
            raise ValueError(f"{type(self).__name__}: prompt_encoder reads all prompts, which streamed rows do not let")
        least, most = self.args.min_density_ratio, self.args.max_density_ratio
        ratios = self.density_ratio(self._embedded(data), least=least, most=most).tolist()
        weights = [1.0 if label else ratio for label, ratio in zip(data["label"], ratios, strict=True)]
        bare: Any = data.remove_columns(COLUMN) if COLUMN in data.column_names else data
        return bare.add_column(COLUMN, weights)

    def _embedded(self, data: Dataset) -> Float[Tensor, "rows width"]:
        """Of each row's prompt; what stands in several rows is read once."""
        prompts = [tuple(ids) for ids in data["prompt_ids"]]
        distinct = list(dict.fromkeys(prompts))
        if self.args.prompt_encoder == REFERENCE:
            found = self._hidden_states(distinct)
        else:
            decode: Any = self.processing_class
            texts = [decode.decode(ids, skip_special_tokens=True) for ids in distinct]
            device = str(self.accelerator.device)
            found = sentence_embeddings(texts, model=self.args.prompt_encoder, device=device)
        at = {ids: number for number, ids in enumerate(distinct)}
        return found[[at[ids] for ids in prompts]]

    def _hidden_states(self, prompts: list[tuple[int, ...]]) -> Float[Tensor, "prompts width"]:
        """Embeddings by the reference."""
        model: Any = self.accelerator.unwrap_model(self.model) if self.ref_model is None else self.ref_model
        own = as_reference(model) if self.ref_model is None else contextlib.nullcontext()
        with own, dropout_off(model):
            return prompt_embeddings(backbone_of(model), prompts)

    def looks_first(self) -> bool:
        """Always: the shift of a step is known only once all of its rewards are."""
        return True

    def baseline_of(self, total: Float[Tensor, ""], rows: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """δ once this step's rows count."""
        self.shift.add(float(total), float(rows))
        return torch.full_like(total, self.shift.mean)

    def baseline_of_set(self, dataloader: Any) -> Float[Tensor, ""]:
        """δ of the steps so far."""
        return torch.tensor(self.shift.mean, device=self.accelerator.device)

    def losses(
        self, rewards: Float[Tensor, " rows"], desirable: Bool[Tensor, " rows"], baseline: Float[Tensor, ""]
    ) -> Float[Tensor, " rows"]:
        """The loss of each row, unreduced."""
        return bco_loss(rewards, desirable, baseline)

    def step_was_skipped(self) -> None:
        """Neither its metrics nor its rewards count."""
        super().step_was_skipped()
        self.shift.forget_step()
