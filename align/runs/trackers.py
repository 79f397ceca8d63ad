"""Tells trackers of experiments what `metrics.jsonl` gets: the same records, each once, and no path of this machine.

transformers has a callback for each tracker that `train.report_to` names. It passes on all arguments and the configuration of
the model, paths included, and a resumed run is a second one to it. Here trackers get the settings that determine the numbers,
and the id of the run, by which they find it again.
"""

import contextlib
import copy
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, TensorBoardCallback

from align.errors import RunError

from .contents import METRICS_FILE, ROUND, TENSORBOARD
from .directory import read_metrics

logger = logging.getLogger(__name__)


def track(trainer: Any, settings: Mapping[str, Any]) -> None:
    """Put what holds paths back between a trainer and each tracker of its `report_to`.

    Args:
        trainer: With its callbacks; its `identity` is read when training begins.
        settings: What is told of the run. A value with a slash in it may be a path, and is left out.
    """
    callbacks = trainer.callback_handler.callbacks
    known = {INTEGRATION_TO_CALLBACK[name]: name for name in trainer.args.report_to}
    for place, callback in enumerate(callbacks):
        if type(callback) is TensorBoardCallback:
            callbacks[place] = TensorBoard(Path(trainer.args.output_dir))
        elif type(callback) in known:
            callbacks[place] = Tracked(known[type(callback)], callback, trainer, settings)


class TensorBoard(TensorBoardCallback):
    """Writes event files below `tensorboard/` of a run: its records, and nothing else.

    Records that a run had logged before it was killed, and after the step that it goes on from, are hidden by the new ones.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.logging_dir = str(run / TENSORBOARD)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the file."""
        if not state.is_world_process_zero or _nothing_left(state):
            return
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - where it is asked for only

        repeated = state.global_step + 1 if state.global_step else 0
        self.tb_writer = SummaryWriter(self.logging_dir, purge_step=repeated)


class Tracked(TrainerCallback):
    """Hands on to one of transformers' trackers what happens, with `settings` in the place of arguments and model.

    One that cannot begin ends the run before its first step; one that fails later is left out, and the run goes on.

    Args:
        name: The tracker's, in `report_to`.
        tracker: The callback.
        trainer: Whose run it is.
        settings: As for `track`.
    """

    def __init__(self, name: str, tracker: TrainerCallback, trainer: Any, settings: Mapping[str, Any]) -> None:
        self.name, self.tracker, self.trainer = name, tracker, trainer
        self.settings = {key: value for key, value in settings.items() if "/" not in json.dumps(value)}
        self.shown: Any = None
        self.begun_elsewhere = False
        self.known: set[tuple[int, frozenset[str]]] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin the run there, or go on with it; what `metrics.jsonl` has already, it was told already.

        Raises:
            RunError: If it cannot begin.
        """
        if _nothing_left(state):
            return
        run, folder = str(self.trainer.identity.run), Path(str(args.output_dir))
        self.known = {_which(record["step"], record) for record in read_metrics(folder / METRICS_FILE)}
        self.shown = copy.copy(args)
        self.shown.run_name = f"{args.run_name or name_of(folder.resolve())}-{run[-8:]}"
        self.shown.to_dict = lambda: {"run": run, **self.settings}
        self.begun_elsewhere = self._open_at_wandb()
        try:
            with _unless_set(WANDB_RUN_ID=run, WANDB_RESUME="allow"):
                self.tracker.on_train_begin(self.shown, state, control, model=None)
        except Exception as error:
            raise RunError(
                f"train.report_to: {self.name} cannot begin: {str(error).partition(chr(10))[0]}; set it up, or leave it out: "
                f"{METRICS_FILE} is written anyway"
            ) from error

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Hand a record on that is new."""
        if logs and _which(state.global_step, logs) not in self.known:
            self._hand_on("on_log", state, control, logs=logs, model=None)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """For trackers that were asked, by variables of theirs, to keep checkpoints."""
        self._hand_on("on_save", state, control, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run there; wandb would take the next one of this process for the same."""
        self._hand_on("on_train_end", state, control, **kwargs)
        if self._open_at_wandb() and not self.begun_elsewhere:
            sys.modules["wandb"].finish()

    def _open_at_wandb(self) -> bool:
        return self.name == "wandb" and sys.modules["wandb"].run is not None

    def _hand_on(self, event: str, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.shown is None:
            return
        try:
            getattr(self.tracker, event)(self.shown, state, control, **kwargs)
        except Exception as error:
            self.shown = None
            logger.warning(
                "train.report_to: %s failed at step %d, and the run goes on without it: %s",
                self.name,
                state.global_step,
                error,
            )


def name_of(run: Path) -> str:
    """What a run is called: its folder's name, or of a round that of all rounds and its own."""
    of_round = ROUND.fullmatch(run.parent.name)
    return f"{run.parent.parent.name}-{run.parent.name}" if of_round else run.name


def _nothing_left(state: TrainerState) -> bool:
    """Whether a finished run is loaded, of which no step is taken."""
    return 0 < state.global_step == state.max_steps


def _which(step: int, record: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    """What tells a record from the others of a run."""
    return step, frozenset(record) - {"step"}


@contextlib.contextmanager
def _unless_set(**variables: str) -> Iterator[None]:
    """Environment variables for a while, where whoever trains has not set them."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ |= ours
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
