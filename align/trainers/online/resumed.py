"""Holds what a resumed run goes on with: the order of prompts, and the sum of losses since the last record."""

from typing import Any, cast

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import RepeatSampler

from align.trainers.shared.trl_contract import set_logging_window


class OrderByEpoch(RepeatSampler):
    """TRL's order of prompts, epoch by epoch the same whether or not the run was resumed in between.

    TRL's generator goes on from epoch to epoch, so that a resumed run begins with the order of the first again.
    """

    @classmethod
    def of(cls, sampler: RepeatSampler) -> "OrderByEpoch":
        """The same sampler, but for that."""
        names = ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
        return cls(**{name: getattr(sampler, name) for name in names})

    def set_epoch(self, epoch: int) -> None:
        """Called at the beginning of each epoch, more than once."""
        if self.shuffle:
            self.generator.manual_seed(cast("int", self.seed))
            for _ in range(epoch):
                torch.randperm(self.num_samples, generator=self.generator)


class Window(TrainerCallback):
    """The first record logged after a resumption counts all its steps."""

    def __init__(self, trainer: Any, window: dict[str, Any]) -> None:
        self.trainer, self.window = trainer, [window]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Once."""
        if self.window:
            set_logging_window(self.trainer, self.window.pop())
