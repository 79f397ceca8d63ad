"""Keeps a run's work: sealed checkpoints, resumption from the last intact one, a stop that saves first."""

import logging
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from align.errors import RunError
from align.runs.agreement import on_main, there_everywhere
from align.runs.checkpoints import (
    MANIFEST,
    check,
    is_foreign,
    newest_checkpoint,
    refuse_without_optimizer,
    rotate,
    seal,
    step_of_foreign,
)
from align.runs.identity import Identity, differences, new_run_id, settings_of_args
from align.tuning.trainer import MovesPart

from .alarms import EarlyStop, Unmoved
from .base import hold_settings, refuse_changed
from .cards import Published
from .dropout import only_adapter_dropout
from .guard import NumericalGuard
from .reference import FirstStep, load_moved, refuse_frozen, save_moved
from .trl_contract import load_best

logger = logging.getLogger(__name__)


class SafeRuns(MovesPart, Published):
    """A Trainer whose checkpoints are whole or passed over. Mixed in before the Trainer.

    A checkpoint is sealed with a manifest once it is written (`align.runs.checkpoints`), and older ones are deleted only
    then, so `save_total_limit` never deletes the last good one, nor any of another run in the same folder.
    `train(resume_from_checkpoint=True)` takes the latest intact one of the run that began last; a path must name an intact
    one. From a run's last checkpoint no further step is taken. Steps that are not finite are skipped (`NumericalGuard`).

    Raises:
        RunError: If a checkpoint cannot be written (a full disk, say), or one to resume from is damaged.
    """

    state: Any
    callback_handler: Any
    unpushed: str | None = None
    reference_identity: dict[str, Any] | None = None
    """Travels with every checkpoint; set by recipes."""
    identity: Identity | None = None
    """Of the run; recipes set it, and else it is an id alone, the checkpoint's if one is resumed."""
    template_day: str | None = None
    """The date that the chat template writes; set by recipes."""
    held: dict[str, Any]
    """Fields of `args` as they were when the trainer was constructed; later changes are refused, not passed over."""
    first_step: FirstStep | None = None
    """Looks at the reference before anything is learnt, where there is one that training begins at."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_frozen(self.model, type(self).__name__)
        self.choose_part()
        if self.first_step is not None:
            self.first_step.made(self.model)
        if self.args.keeps_adapter_dropout():
            only_adapter_dropout(self.model, getattr(self, "ref_model", None))
        self.guard = NumericalGuard(self.args.max_skipped_steps, self)
        self.unmoved = Unmoved()
        self.add_callback(self.guard)
        self.add_callback(self.unmoved)
        self.early_stop: EarlyStop | None = None
        if self.args.early_stopping_patience is not None:
            self.early_stop = EarlyStop(self.args.early_stopping_patience, self.args.early_stopping_threshold)
            self.add_callback(self.early_stop)
        self.add_callback(_NothingLeft(self.early_stop))
        hold_settings(self)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The Trainer's, with the settings that it was constructed with."""
        refuse_changed(self)
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: its result would be empty.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{type(self).__name__}: predict would return logits, which are never built; measure with "
            "evaluate(data, metric_key_prefix='test'), and generate with the model itself"
        )

    def step_was_skipped(self) -> None:
        """Take back what the trainer has counted of the step. Nothing by default."""

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, unsealed: bool = False, **kwargs: Any
    ) -> Any:
        """The Trainer's, from an intact checkpoint. What settings are not as they were is said.

        Args:
            resume_from_checkpoint: A checkpoint, or True for the latest intact one.
            *args: The Trainer's.
            unsealed: Go on from a checkpoint that has no manifest, as TRL's own trainers write them: nothing tells
                whether it is whole.
            **kwargs: The Trainer's.
        """
        refuse_changed(self)
        if resume_from_checkpoint is True:
            found = on_main(lambda: newest_checkpoint(Path(self.args.output_dir)))
            if found is None:
                raise RunError(f"{self.args.output_dir}: no intact checkpoint there; train without one")
            resume_from_checkpoint = str(found)
        now = Identity(settings=settings_of_args(self.args))
        known = replace(now, run=on_main(new_run_id), reference=self.reference_identity)
        if resume_from_checkpoint and is_foreign(Path(resume_from_checkpoint)):
            if not unsealed:
                raise RunError(
                    f"{resume_from_checkpoint}: it was not written to its end, or by TRL's own trainers (no {MANIFEST}); "
                    "go on from it with train(..., unsealed=True) if it is whole"
                )
            there_everywhere(Path(resume_from_checkpoint), step_of_foreign)
            logger.warning("%s has no %s: nothing tells whether it is whole", resume_from_checkpoint, MANIFEST)
        elif resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
            there_everywhere(folder, lambda path: check(path)["step"])
            written = check(folder)
            refuse_without_optimizer(folder)
            known = written["identity"]
            for change in differences(known, now) if self.identity is None else ():
                logger.warning("%s: goes on with another setting: %s", folder, change)
            known = replace(known, settings=now.settings)
            if written["processes"] != self.accelerator.num_processes:
                logger.warning(
                    "%s was written by %d processes and is resumed by %d: the order of the data and the random states "
                    "are not those of an uninterrupted run", folder, written["processes"], self.accelerator.num_processes,
                )  # fmt: skip
            self.load_state(folder)
        self.identity = self.identity or known
        if self.first_step is not None:
            self.first_step.begins(self.model)
        try:
            return super().train(resume_from_checkpoint or None, *args, **kwargs)
        except _Ended:
            self.is_in_train = False
            load_best(self)
            return TrainOutput(self.state.global_step, 0.0, {})

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The Trainer's, once the checkpoint is sealed: what is uploaded can be resumed."""
        if not (Path(checkpoint_folder) / MANIFEST).exists():
            self.unpushed = checkpoint_folder
        else:
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        failure = None
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed after this step
            self.accelerator.wait_for_everyone()
            for callback in self.callback_handler.callbacks:  # TRL's checkpoint, resumed, knows none of ours
                if isinstance(callback, ExportableState):
                    self.state.stateful_callbacks.setdefault(type(callback).__name__, {})
            super()._save_checkpoint(model, trial)
            self.save_state(folder)
        except Exception as error:  # torch, safetensors and Python each have their own for a full disk
            failure = error
        finally:
            self.args.save_total_limit = limit
        failed = self.anywhere(failure is not None)
        if self.accelerator.is_main_process:
            try:
                if not failed:
                    seal(
                        folder,
                        step=self.state.global_step,
                        ends_at=self.state.max_steps,
                        processes=self.accelerator.num_processes,
                        identity=self.identity or Identity(reference=self.reference_identity),
                    )
            except OSError as error:
                failure = error
            if failure is not None or failed:
                shutil.rmtree(folder, ignore_errors=True)
            elif self.args.should_save:
                own = self.identity.run if self.identity else None
                rotate(folder.parent, own, self.state.global_step, limit, self.state.best_model_checkpoint)
        if self.anywhere(failure is not None):
            reason = str(failure).partition("\n")[0] if failure is not None else "another process could not write"
            raise RunError(
                f"{folder} could not be written: {reason}; older checkpoints are as they were: make room or mend the "
                "folder, and go on with --resume auto"
            ) from failure
        if self.unpushed is not None:
            self.unpushed = None
            super()._push_from_checkpoint(str(folder))

    def save_state(self, folder: Path) -> None:
        """Write what else a trainer needs to go on: here a reference that moves."""
        save_moved(self, folder)

    def load_state(self, folder: Path) -> None:
        """Read what `save_state` wrote."""
        load_moved(self, folder)

    def anywhere(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.gather(torch.tensor([flag], device=self.accelerator.device)).any())


class _Ended(Exception):
    """There is no step left to take."""


class _NothingLeft(TrainerCallback):
    """Ends a training that was resumed where it ends: the Trainer would take one more step if that is within an epoch."""

    def __init__(self, early_stop: EarlyStop | None) -> None:
        self.early_stop = early_stop

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look whether any step is left.

        Raises:
            RunError: If more have been done than there are.
        """
        if state.global_step > state.max_steps:
            raise RunError(
                f"the checkpoint has done {state.global_step} steps, and the run ends after {state.max_steps}; resume an earlier "
                "one, in another folder"
            )
        if state.global_step == state.max_steps or (self.early_stop is not None and self.early_stop.is_over):
            raise _Ended


class StopOnSignal(TrainerCallback):
    """On SIGTERM or SIGINT (Ctrl-C), finish the step, save and stop. The same signal again ends the process at once.

    Schedulers of clusters send SIGTERM some seconds before SIGKILL: a step and a checkpoint have to fit in there. The
    signals are taken over while the object, as a context manager, lasts. Under a launcher a signal comes twice at once, from
    whoever ends all processes and from the launcher: that counts as one.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)
    AT_ONCE = 3.0  # seconds

    def __init__(self) -> None:
        self.asked = 0
        """The signal that came, or 0."""
        self._launched = int(os.environ.get("WORLD_SIZE") or 1) > 1
        self._came: dict[int, float] = {}
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        """Take the signals over, where that is possible: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        first = self._came.setdefault(number, now)
        if first != now and not (self._launched and now - first < self.AT_ONCE):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            signal.raise_signal(number)
        self.asked = number

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop, on all processes at the same step."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            asked = torch.tensor([float(self.asked)], device=args.device)
            dist.all_reduce(asked, op=dist.ReduceOp.MAX)
            self.asked = int(asked.item())
        if self.asked:
            control.should_save = control.should_training_stop = True
