"""Asks Optuna for the settings of a sweep, one after another, each by what the runs before it reached."""

import argparse
import importlib
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import RunError
from align.methods import METHODS
from align.recipe.loading import Recipe
from align.runs.contents import METRICS_FILE
from align.runs.directory import read_metrics

from .grid import TRIES, Range, Space

PACKAGE = "optuna"


class Aim(NamedTuple):
    """What a search looks for."""

    metric: str
    """As a run logs it; of an evaluation without `eval_`."""
    maximize: bool

    def of_run(self, run: Path, recipe: Recipe) -> float:
        """What the weights that a finished run ended with reached: the last value, or that of the step whose weights it kept.

        Raises:
            RunError: If the run logged no such metric.
        """
        records = read_metrics(run / METRICS_FILE)
        found = _values(records, self.metric)
        if not found:
            known = sorted({key.removeprefix("eval_") for record in records for key in record} - {"step", "epoch"})
            raise RunError(f"{run}: logged no {self.metric}; it has {', '.join(known)}. The run stays")
        if not recipe.train.load_best_model_at_end:
            return found[max(found)]
        best = (recipe.train.metric_for_best_model or "loss").removeprefix("eval_")
        sign = 1 if recipe.train.greater_is_better else -1
        kept = _values(records, best)
        step = max(kept, key=lambda step: (sign * kept[step], -step))
        return found.get(step, found[max(found)])


def _values(records: Sequence[Mapping[str, Any]], metric: str) -> dict[int, float]:
    """By step; of what is not finite, which is written as text, NaN."""
    return {
        record["step"]: float(record[key]) if isinstance(record[key], int | float) else math.nan
        for record in records
        for key in (metric, f"eval_{metric}")
        if key in record
    }


def aim_of(options: argparse.Namespace) -> Aim | None:
    """What a search looks for; None if none is asked for.

    Raises:
        RunError: If one is asked for by half, or in more than one run at a time.
    """
    metric = options.maximize or options.minimize
    if options.optuna is None:
        if metric:
            raise RunError("--maximize and --minimize: do nothing without --optuna N")
        return None
    if options.optuna < 1:
        raise RunError(f"--optuna: must be at least 1, got {options.optuna}")
    if not metric:
        raise RunError("--optuna: say by what, as --maximize holdout_rewards/accuracies or --minimize holdout_loss")
    if options.jobs != 1:
        raise RunError("--optuna: asks for one setting after another; leave --jobs out")
    return Aim(metric.removeprefix("eval_"), maximize=options.maximize is not None)


def logged(recipe: Recipe, aim: Aim) -> list[str]:
    """What a check is told besides, so that it refuses a metric that no evaluation logs.

    Raises:
        RunError: If nothing is evaluated where training's own figures say little, or the run is one of rounds.
    """
    if recipe.rounds is not None:
        raise RunError("--optuna: a run of rounds logs no figure of the whole; use --random N and the page")
    if recipe.train.eval_strategy.value != "no":
        return [f"train.metric_for_best_model={aim.metric}"]
    if METHODS[recipe.method].rows != "prompts":
        raise RunError(
            f"{aim.metric}: nothing is evaluated in training; set train.eval_strategy=steps, and data.holdout or data.eval"
        )
    return []


class Search:
    """A study of Optuna's by its tree-structured Parzen estimator (arXiv:2304.11127).

    Each setting depends on the seed, its number and what the settings before it reached alone: a search that was stopped goes on
    as one that was not.

    Args:
        space: What settings are taken from.
        maximize: Whether more is better.
        seed: Of the draws.

    Raises:
        RunError: If Optuna is not installed.
    """

    def __init__(self, space: Space, *, maximize: bool, seed: int) -> None:
        if find_spec(PACKAGE) is None:
            raise RunError("--optuna: Optuna is not installed; run `pip install optuna`, or use --random N")
        self._optuna: Any = importlib.import_module(PACKAGE)
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self.space, self.seed = space, seed
        self._direction = "maximize" if maximize else "minimize"
        of = self._optuna.distributions
        self._of = {key: of.CategoricalDistribution(texts) for key, texts in space.values.items()}
        for key, one in space.ranges.items():
            self._of[key] = (
                of.IntDistribution(int(one.low), int(one.high), log=one.log)
                if one.whole
                else of.FloatDistribution(one.low, one.high, log=one.log)
            )

    def ask(self, told: Sequence[tuple[Mapping[str, str], float | None]]) -> dict[str, str] | None:
        """The next setting.

        Args:
            told: Settings so far, as they are written, and what each reached; None for one that failed.

        Returns:
            What each key is, as it is written; None if none was found that is not there yet.

        Raises:
            RunError: If one of those so far is not of this space.
        """
        trials = [self._trial(one, value) for one, value in told]
        for attempt in range(TRIES):
            sampler = self._optuna.samplers.TPESampler(seed=self.seed + TRIES * len(told) + attempt)
            study = self._optuna.create_study(direction=self._direction, sampler=sampler)
            study.add_trials(trials)
            given = study.ask(self._of).params
            asked = {
                key: self.space.ranges[key].written(value) if key in self.space.ranges else value
                for key, value in sorted(given.items())
            }
            if asked not in [dict(one) for one, _ in told]:
                return asked
        return None

    def _trial(self, setting: Mapping[str, str], value: float | None) -> Any:
        state = self._optuna.trial.TrialState
        known = value is not None and math.isfinite(value)
        if set(setting) != set(self._of) or not all(
            _within(self.space.ranges[key], text) if key in self.space.ranges else text in self.space.values[key]
            for key, text in setting.items()
        ):
            told = " ".join(f"{key}={text}" for key, text in setting.items())
            raise RunError(f"{told}: was asked for by a search in another space; choose another --out")
        params = {
            key: (int(text) if self.space.ranges[key].whole else float(text)) if key in self.space.ranges else text
            for key, text in setting.items()
        }
        return self._optuna.trial.create_trial(
            params=params, distributions=self._of, value=value if known else None,
            state=state.COMPLETE if known else state.FAIL,
        )  # fmt: skip


def _within(one: Range, text: str) -> bool:
    try:
        return one.low <= float(text) <= one.high
    except ValueError:
        return False


def ends(space: Space) -> list[dict[str, str]]:
    """Settings that hold every value and both ends of every range, as few as that needs: what a check looks at before a search."""
    each = dict(space.values) | {
        key: [one.written(one.low), one.written(one.high)] for key, one in space.ranges.items()
    }
    many = max(len(texts) for texts in each.values())
    return [{key: each[key][min(index, len(each[key]) - 1)] for key in sorted(each)} for index in range(many)]
