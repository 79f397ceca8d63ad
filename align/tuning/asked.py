"""Keeps learning rates and the optimizer's other settings those that are asked for, where a run goes on from a checkpoint."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

ASKED = ("initial_lr", "weight_decay", "betas", "eps", "momentum")
"""Settings of a group of parameters that no optimizer changes on its way."""


class AskedRates(TrainerCallback):
    """Puts the optimizer's settings back once the Trainer has loaded a checkpoint's state over them.

    That state has the learning rates, what their schedule starts from and the groups' settings of the run as it was. A run that goes on with
    others would not use them, and one that was made longer would take its next step at the last rate of the shorter schedule. A
    scheduler of one's own, and one that is no function of the step, is left as it was loaded.
    """

    def __init__(self) -> None:
        self._groups: list[dict[str, Any]] = []
        self._scheduler: LambdaLR | None = None

    def note(self, optimizer: Optimizer, scheduler: Any) -> None:
        """Remember what is asked for, as the settings of the trainer have just made it."""
        self._scheduler = scheduler if isinstance(scheduler, LambdaLR) else None
        self._groups = [{key: group[key] for key in ASKED if key in group} for group in optimizer.param_groups]

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Put it back, with the rate of the step that is due."""
        scheduler = self._scheduler
        if state.global_step == 0 or optimizer is None or scheduler is None:
            return
        if len(optimizer.param_groups) != len(self._groups):
            return
        for group, asked in zip(optimizer.param_groups, self._groups, strict=True):
            group.update(asked)
        scheduler.base_lrs = [asked["initial_lr"] for asked in self._groups]
        due = [
            base * rate(scheduler.last_epoch)
            for base, rate in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, due, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        scheduler._last_lr = due
