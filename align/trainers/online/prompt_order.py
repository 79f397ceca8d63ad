"""Keeps the order of prompts, which a resumed run goes on with."""

from typing import cast

import torch
from trl.trainer.utils import RepeatSampler


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
