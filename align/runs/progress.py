"""Tells on stderr how far a training is, in one line a person can read; `metrics.jsonl` has every figure."""

import shutil
import sys
import time
from datetime import timedelta
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

ACCURACY, TOKENS = "rewards/accuracies", "mean_token_accuracy"
SHOWN = {
    "loss": "loss",
    "rewards/margins": "margin",
    TOKENS: "accuracy of tokens",
    ACCURACY: "accuracy",
    "reward": "reward",
}
"""What of a record is told, and in which word."""
ERASE = "\x1b[2K"


def tell_progress(trainer: Any) -> None:
    """Put `Progress` where transformers would draw its bar and print records; where it would not, nothing is told.

    It draws none with `disable_tqdm: true`, and another in a notebook.
    """
    own = trainer.callback_handler.callbacks
    if any(type(callback) is ProgressCallback for callback in own):
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(Progress)


class Progress(TrainerCallback):
    """On a terminal a line that is written anew after each step, else a line for each record; evaluations have their own.

    The first process alone tells.
    """

    def __init__(self) -> None:
        self.begun, self.first, self.told = 0.0, 0, ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Time is counted from here, and from the step that a checkpoint was of."""
        self.begun, self.first = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """On a terminal, write the line anew."""
        if state.is_world_process_zero and sys.stderr.isatty():
            self._rewrite(self._line(state))

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """On a terminal, say why no step is taken."""
        if state.is_world_process_zero and sys.stderr.isatty():
            self._rewrite(f"{self._line(state)}, evaluating")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Tell a record: one of training, or one of an evaluation."""
        if not state.is_world_process_zero or not logs:
            return
        ends = [name for name in logs if name.endswith("_runtime")]
        if "train_runtime" in ends:
            seconds = time.monotonic() - self.begun
            kept = ""
            if args.load_best_model_at_end and state.best_model_checkpoint is not None:
                best = f"the best by {args.metric_for_best_model}: {state.best_metric:.4g}"
                kept = f"; kept are the weights of step {state.best_global_step}, {best}"
            self._write(f"{state.global_step - self.first} steps in {_clock(seconds)}{kept}")
        elif ends:
            prefix = ends[0].removesuffix("_runtime")
            figures = {name.removeprefix(f"{prefix}_"): value for name, value in logs.items()}
            self._write(f"step {state.global_step}: {prefix.replace('_', ' ')}: {_figures(figures)}")
        else:
            self.told = _figures(logs)
            tell = self._rewrite if sys.stderr.isatty() else self._write
            tell(self._line(state))

    def _line(self, state: TrainerState) -> str:
        done, to_do = state.global_step - self.first, state.max_steps - state.global_step
        left = f"{_clock((time.monotonic() - self.begun) / done * to_do)} left" if done > 0 else ""
        return ", ".join(filter(None, (f"step {state.global_step}/{state.max_steps}", self.told, left)))

    @staticmethod
    def _rewrite(line: str) -> None:
        """Leave the cursor at the beginning: what others write goes over the line, and not behind it."""
        sys.stderr.write(f"{ERASE}{line[: shutil.get_terminal_size().columns - 1]}\r")
        sys.stderr.flush()

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(f"{ERASE * sys.stderr.isatty()}{line}\n")
        sys.stderr.flush()


def _figures(logs: dict[str, Any]) -> str:
    """What is told of a record."""
    found = {word: logs[name] for name, word in SHOWN.items() if isinstance(logs.get(name), int | float)}
    if SHOWN[ACCURACY] in found:  # of answers says more
        found.pop(SHOWN[TOKENS], None)
    return ", ".join(f"{word} {value:.3g}" for word, value in found.items())


def _clock(seconds: float) -> str:
    """As 1:02:03."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")
