"""Declares what the configuration of every method has and answers, and checks fields that all of them share."""

import argparse
import copy
import dataclasses
import json
import math
import numbers
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .parts import PartConfig, part_problems

COUNTS = (
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "max_length",
    "save_total_limit", "max_skipped_steps", "early_stopping_patience", "num_generations", "num_generations_eval",
    "num_iterations", "max_completion_length", "steps_per_generation", "generation_batch_size", "redraw_every",
    "drawn_layers",
)  # fmt: skip
JSON_FIELDS = ("objective", "weighting_options", "estimator_options", "gradient_layers")
"""Fields of ours that are no plain text or number: parsers of command lines hand them over as JSON."""
NO_OBJECTIVE = "must name objectives and their weights, such as {nll: 1.0}"
NOT_NEGATIVE = ("seed", "data_seed", "learning_rate", "weight_decay", "max_grad_norm", "early_stopping_threshold")


class ConfigError(ValueError):
    """Settings that contradict each other or would be ignored; one line per problem."""


@dataclass
class MethodConfig(PartConfig):
    """What the configuration of every method has and answers. Mixed in before TRL's, whose fields it does not read.

    A configuration overrides the answers that differ for it.

    What was given and what was made of it are remembered, so that `settle_again` can tell what was changed afterwards.
    """

    max_skipped_steps: int = field(
        default=10,
        metadata={
            "help": "A step whose loss or gradient is not finite is skipped and its batch kept for `alignkit replay`; "
            "training ends when so many steps have been skipped."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Training ends when `metric_for_best_model` has not improved in so many evaluations in a row. With "
            "`load_best_model_at_end`, which it needs, the run ends with the best weights."
        },
    )
    early_stopping_threshold: float = field(
        default=0.0, metadata={"help": "By how much the metric has to improve for it to count. Needs a patience."}
    )

    def __post_init__(self) -> None:
        given = fields_of(self)
        for name in JSON_FIELDS:
            if isinstance(getattr(self, name, None), str):
                setattr(self, name, _from_json(getattr(self, name)))
        raise_all(no_numbers(self) or self.problems())
        self._trl_checks()
        self._derive()
        self._given, self._settled = given, fields_of(self)

    def _trl_checks(self) -> None:
        super().__post_init__()  # type: ignore[misc]

    def _derive(self) -> None:
        """Fill in what follows from the fields. Nothing by default."""

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        return [*out_of_range(self), *_never_early(self), *part_problems(self)]

    def to_dict(self) -> dict[str, Any]:
        """TRL's, which can be read again: only secrets are hidden, and only where there is one."""
        values: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        shown = {name: getattr(self, name) for name in values if name.endswith("_token") and "hub" not in name}
        missing = {name: None for name in values if name.endswith("_token") and getattr(self, name) is None}
        return values | shown | missing

    def columns(self) -> tuple[str, ...]:
        """Further columns of the data that the settings need: one finite number per row each."""
        return ()

    def text_columns(self) -> tuple[str, ...]:
        """Further columns of the data that the settings need: one text per row each."""
        return ()

    def turns_dropout_off(self) -> bool:
        """Whether training switches dropout off, that of adapters included."""
        return False

    def keeps_adapter_dropout(self) -> bool:
        """Whether the adapter alone has dropout: what `disable_dropout` says if nothing is given."""
        return getattr(self, "disable_dropout", False) is None

    def moves_reference(self) -> bool:
        """Whether the reference follows the policy during training."""
        return False

    def stores_reference(self) -> bool:
        """Whether log-probabilities of the reference are computed before training and kept."""
        return False

    def pairs_per_step(self) -> int | None:
        """Pairs per optimizer step over all processes, if the settings fix that."""
        return None


@dataclass
class SharesPrompts(MethodConfig):
    """The option of methods that have several answers to a prompt in one batch."""

    shared_prefix: Literal["auto", "on", "off"] = field(
        default="auto",
        metadata={
            "help": "Compute a prompt once, for all its answers in a batch. 'auto' does so where the model allows it and "
            "the first batch gives the same log-probabilities both ways, and says why not otherwise; 'on' fails instead; "
            "'off' never does. Online methods then also draw tokens by TRL's random numbers, which takes longer."
        },
    )

    def problems(self) -> list[str]:
        """See `MethodConfig.problems`."""
        found = super().problems()
        if self.shared_prefix not in ("auto", "on", "off"):
            found.append(f"shared_prefix: must be 'auto', 'on' or 'off', got {self.shared_prefix!r}")
        return found


class OnOrOff(argparse.Action):
    """A flag of three values for `HfArgumentParser`: `--name`, `--name false`, `--no_name`, or none of them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Take what the command line says."""
        said = True if values is None else values
        setattr(namespace, self.dest, not said if str(option_string).startswith("--no") else said)


def three_valued(name: str, text: str) -> Any:
    """A field that is None until it is set, and its flags for `HfArgumentParser`.

    Args:
        name: Of the field.
        text: Its help.
    """
    flags = [f"--no_{name}", f"--no-{name.replace('_', '-')}"]
    return field(default=None, metadata={"help": text, "action": OnOrOff, "nargs": "?", "aliases": flags})


DROPOUT = (
    "Switch dropout off. By default in the model but not in an adapter that is given one; true refuses such an adapter."
)
"""Help of `disable_dropout`, which the configurations of pairs and of preference models have."""


def settle_again(config: MethodConfig) -> None:
    """Check a configuration some fields of which were set after it was made, and derive anew what follows from them.

    Raises:
        ConfigError: As when it is made with these fields.
        ValueError: Likewise, by TRL's checks.
    """
    settled = vars(config).get("_settled")
    if settled is None:  # read from a file of another version
        return
    changed = {name: value for name, value in fields_of(config).items() if value != settled[name]}
    if changed:
        made: Any = type(config)
        vars(config).update(vars(made(**config._given | changed)))


def fields_of(config: Any) -> dict[str, Any]:
    """The value of each field that a configuration is made with; lists and tables are copies."""
    values = {entry.name: getattr(config, entry.name) for entry in dataclasses.fields(config) if entry.init}
    return {name: copy.deepcopy(v) if isinstance(v, dict | list) else v for name, v in values.items()}


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def raise_all(problems: Sequence[str]) -> None:
    """Raise ConfigError with all the problems, one line each, if there are any."""
    if problems:
        raise ConfigError("\n".join(problems))


def defaults_of(config: Any) -> dict[str, Any]:
    """The default of each field of a configuration."""
    return {
        entry.name: entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default
        for entry in dataclasses.fields(config)
    }


def not_honoured(config: Any, refused: Mapping[str, str], also: Mapping[str, Any] | None = None) -> list[str]:
    """One line for each field that must keep its default and has another value.

    Args:
        config: The configuration; fields that it does not have are passed over.
        refused: By field, what to do instead.
        also: By field, another value that says no more than the default does.
    """
    found = []
    for name, default in defaults_of(config).items():
        value = getattr(config, name)
        if name in refused and value not in (default, (also or {}).get(name, default)):
            found.append(f"{name}: not honoured here, got {value!r}; {refused[name]}")
    return found


def shards_on_cpus(config: Any) -> list[str]:
    """The line that refuses `fsdp` on CPUs."""
    if config.fsdp and config.use_cpu:
        return ["fsdp: accelerate does not shard on CPUs, and would train plain replicas without a word"]
    return []


def rebalances_batches(config: Any) -> list[str]:
    """The line that refuses batches made equal by a column of lengths, which no data of ours have."""
    if config.train_sampling_strategy == "batch_rebalance":
        return ["train_sampling_strategy: 'batch_rebalance' needs a column of lengths; use 'group_by_length'"]
    return []


def out_of_range(config: Any) -> list[str]:
    """Every count, rate or seed of a configuration that cannot be meant, one line each, the field's name first."""
    set_to = {entry.name: getattr(config, entry.name) for entry in dataclasses.fields(config)}
    given = {name: value for name, value in set_to.items() if value is not None}
    found = [f"{name}: must be at least 1, got {given[name]}" for name in COUNTS if given.get(name, 1) < 1]
    found += [
        f"{name}: must be finite and not negative, got {given[name]}"
        for name in NOT_NEGATIVE
        if not 0 <= given.get(name, 0) < math.inf
    ]
    found += [
        f"{name}: must be below 2**32, got {given[name]}"
        for name in ("seed", "data_seed")
        if given.get(name, 0) >= 2**32
    ]
    if config.max_steps <= 0 and not 0 < config.num_train_epochs < math.inf:
        found.append(f"num_train_epochs: must be positive and finite, got {config.num_train_epochs}")
    return found


def _never_early(config: Any) -> list[str]:
    """What an end of training by a metric lacks."""
    if config.early_stopping_patience is None:
        stray = config.early_stopping_threshold != 0
        return [
            "early_stopping_threshold: does nothing without early_stopping_patience; set that, or remove it"
        ] * stray
    lacks = [name for name in ("load_best_model_at_end", "metric_for_best_model") if not getattr(config, name)]
    return [f"early_stopping_patience: needs {' and '.join(lacks)} too, and evaluations"] * bool(lacks)


def no_numbers(config: Any) -> list[str]:
    """One line for each field that must be a number, or a whole one, and is something else."""
    found = []
    for name, hint in typing.get_type_hints(type(config)).items():
        kinds = {hint, *typing.get_args(hint)}
        value = getattr(config, name, None)
        if not kinds & {int, float} or kinds & {str, bool} or value is None:
            continue
        if not is_number(value) or (float not in kinds and value != int(value)):
            found.append(f"{name}: must be a {'' if float in kinds else 'whole '}number, got {value!r}")
    return found


def is_number(value: Any) -> bool:
    """Whether a value is a number; a truth value is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def are_layers(value: Any) -> bool:
    """Whether it names layers: the last so many, 'all', or those from FIRST to LAST, counted from 0."""
    if isinstance(value, str):
        first, _, last = value.partition("-")
        return value == "all" or (first.isdecimal() and last.isdecimal() and int(first) <= int(last))
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
