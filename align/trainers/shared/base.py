"""Gives the trainers on given data what they share: checked arguments, metrics, and LoRA without casts."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from peft import PeftConfig
from peft.helpers import disable_input_dtype_casting

from align.configs.common import MethodConfig, fields_of, no_numbers, raise_all, settle_again

from .dropout import refuse_silent_dropout
from .metrics import MetricSums, evaluated_as
from .trl_contract import TrainerBase, default_output_dir

C = TypeVar("C", bound=MethodConfig)

READ_AT_USE = (
    "output_dir", "run_name", "max_steps", "num_train_epochs", "logging_steps", "logging_first_step", "save_total_limit",
)  # fmt: skip
"""Fields that no trainer has read before training begins. Any other may have been read when it was constructed."""


def own_args(trainer: Any, wanted: type[C], args: Any, model: Any, peft_config: PeftConfig | None = None) -> C:
    """The arguments of a trainer that is being constructed; by default those of its configuration, named after the model.

    What was set after they were made is checked as if it had been given then.

    Raises:
        TypeError: If they are not of the configuration `wanted`.
        ConfigError: If a field was set to what the configuration refuses.
        ValueError: If `disable_dropout=True` would switch off the dropout of an adapter.
    """
    if args is None:
        make: Any = wanted
        return make(default_output_dir(trainer, model))
    if not isinstance(args, wanted):
        package, name = type(args).__module__.split(".")[0], type(args).__name__
        remedy = "" if package == "align" else "; it has the same fields, so replace the import"
        raise TypeError(f"{type(trainer).__name__}: args must be align.{wanted.__name__}, got {package}.{name}{remedy}")
    settle_again(args)
    if args.turns_dropout_off():
        for config in [peft_config, *getattr(model, "peft_config", {}).values()]:
            refuse_silent_dropout(config, type(trainer).__name__)
    return args


def hold_settings(trainer: Any) -> None:
    """Remember the arguments as the construction of a trainer has left them, for `refuse_changed`."""
    trainer.held = fields_of(trainer.args)


def refuse_changed(trainer: Any) -> None:
    """Stop if `args` were changed after the trainer was constructed, which has read most of them already.

    What is read at use may be changed, to what the configuration takes.

    Raises:
        ConfigError: With a line for each field.
    """
    now, held = fields_of(trainer.args), trainer.held
    changed = {name: (held.get(name), value) for name, value in now.items() if value != held.get(name)}
    raise_all(
        [
            f"args.{name}: {old!r} -> {new!r} after {type(trainer).__name__} was constructed, which may not follow; construct "
            "another with it"
            for name, (old, new) in changed.items()
            if name not in READ_AT_USE
        ]
    )
    if changed:
        raise_all(no_numbers(trainer.args) or trainer.args.problems())


class LogsSums(TrainerBase):
    """A trainer whose logs are those of its `sums`. Mixed in before `SafeRuns`, whose guard it reads."""

    args: Any
    accelerator: Any
    model: Any
    guard: Any
    weights_beside: Mapping[Path, str] = MappingProxyType({})
    """Folders of frozen adapters that a method adds to the model's own weights, and their digests."""
    sums: MetricSums

    def take_metrics(self, mode: str) -> dict[str, float]:
        """The metrics of `train` or `eval` since the last call."""
        return self.sums.take(mode)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics gathered since the last call, under the prefix of the evaluation that `logs` belong to."""
        mode = "train" if self.model.training else "eval"
        metrics = self.take_metrics(mode)
        if mode == "train" and "loss" not in logs:  # the summary at the end, with what came after the last log
            metrics.pop("loss", None)
            logs.update(metrics)
        elif mode == "train":
            if not metrics:  # every step since the last log was skipped, which the Trainer's loss leaves out in its way
                logs.pop("loss")
            if self.guard.skipped:
                logs["skipped_steps"] = self.guard.skipped
            logs.update(metrics, num_tokens=self.sums.num_tokens)
        else:
            logs.update({f"{evaluated_as(logs)}_{name}": value for name, value in metrics.items()})
        super().log(logs, start_time)

    def step_was_skipped(self) -> None:
        """Its metrics are not logged."""
        self.sums.forget_step()

    def no_casts(self) -> contextlib.AbstractContextManager[None]:
        """Under autocast, spare LoRA layers the copy of their input in the adapter's precision, which is cast back.

        The product is the same, and what is kept for backward is one tensor for all maps that read it.
        """
        return disable_input_dtype_casting(self.model, active=self.accelerator.mixed_precision in ("bf16", "fp16"))
