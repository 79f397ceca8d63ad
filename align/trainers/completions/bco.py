"""Trains a binary classifier of labelled answers: KTO's rows and steps, with BCO's loss and its running shift of rewards."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.configs.bco import BCOConfig
from align.losses.unpaired import bco_loss
from align.trainers.shared.metrics import StepMemory

from .kto import KTOTrainer


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

    Raises:
        TypeError: If `args` is not a BCOConfig.
        ValueError: As `KTOTrainer`.
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

    def constructed(self) -> None:
        """Keep the shift in checkpoints."""
        self.shift = RunningShift()
        self.add_callback(self.shift)

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
