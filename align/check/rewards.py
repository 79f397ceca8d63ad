"""Looks at what a recipe scores with: rewards of training, and everything that its `eval` section names."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from datasets import Dataset

from align.errors import USER_ERRORS
from align.findings import Finding, Level, printable
from align.judges.from_recipe import prepare_judge, prepare_judges
from align.methods import METHODS
from align.recipe.loading import Recipe
from align.rewards import make_reward
from align.rewards.load import columns_of, load_reward
from align.rewards.texts import has_value

PROMPT_SETS = ("instructions", "refusals")
ASKED = "--allow"


def inspect_rewards(recipe: Recipe, sets: Mapping[str, Dataset], allow: Collection[str]) -> list[Finding]:
    """Rewards and a judge that cannot be made, or read a column that is not there or holds nothing.

    Args:
        recipe: The recipe.
        sets: Normalised rows, by the name of their set.
        allow: The MODULE:FUNCTION that may be imported.
    """
    found, judge = [], recipe.judge
    named = [(f"rewards.{name}", name, options) for name, options in recipe.rewards.items()]
    if judge is not None:
        make = functools.partial(prepare_judge, "judge", judge, recipe.model, list(allow), Path("judge.jsonl"))
        found += _said("judge", "judge", make)
        named += [("judge", str(judge.reward), judge.options or {})] if judge.kind == "reward" else []
    for where, name, options in named:
        if where != "judge":
            found += _said(where, "reward", lambda name=name, options=options: make_reward(name, allow, **options))
        for column in columns_of(name, **options):
            for of, dataset in sets.items():
                found += _of_column(name, column, of, dataset)
    return found


def _of_column(name: str, column: str, where: str, dataset: Dataset) -> list[Finding]:
    if column not in dataset.column_names:
        message = (
            f"no column {column!r}, which the reward {name!r} reads; there are "
            f"{printable(', '.join(dataset.column_names), 200)}"
        )
        return [Finding("error", "reward-column", where, message, f"map it with `columns: {{{column}: ...}}`")]
    empty = [number for number, value in enumerate(dataset[column], start=1) if not _is_given(value)]
    if not empty:
        return []
    all_empty = len(empty) == len(dataset)
    level: Level = "error" if all_empty else "warning"
    message = f"{column!r}, which the reward {name!r} reads, is empty in {len(empty)} of {len(dataset)} rows"
    remedy = "these rows get no reward: fill them, map another column, or leave the reward out"
    return [Finding(level, "reward-column", where, message, remedy, () if all_empty else tuple(empty))]


def _is_given(value: object) -> bool:
    return len(value) > 0 if isinstance(value, list | dict) else has_value(value)


def inspect_evaluation(recipe: Recipe, allow: Collection[str]) -> list[Finding]:
    """Settings of `eval` with which the evaluation of the finished run would stop.

    What only needs a permission, or a key of whoever evaluates, is a note: training does not ask for it.
    """
    config, found = recipe.eval, list[Finding]()
    method = METHODS[recipe.method]
    if config.generate is not None and method.model == "preference":
        message = f"method {recipe.method!r} trains a model that judges answers and writes none"
        found.append(Finding("error", "eval-setting", "eval.generate", message, "leave it out"))
    if config.gold_reward is not None:
        gold = config.gold_reward
        found += _said("eval.gold_reward", "eval-setting", lambda: load_reward(gold, allow))
    for name, judge in config.judges.items():
        alone = type(config)(generate=config.generate, judges={name: judge})
        where = f"eval.judges.{name}"
        found += _said(
            where,
            "eval-setting",
            lambda alone=alone: prepare_judges(alone, recipe.model, allow=list(allow), ledgers=Path()),
        )
    for name in PROMPT_SETS:
        given = getattr(config, name)
        if given is not None and not Path(given.path).is_file():
            message = f"{printable(given.path, 200)}: no such file"
            found.append(
                Finding("error", "eval-setting", f"eval.{name}.path", message, f"leave eval.{name} out, or name it")
            )
    return found


def _said(where: str, rule: str, make: Callable[[], object]) -> Iterator[Finding]:
    """What keeps something from being made."""
    with contextlib.suppress(ImportError):  # a package that only the evaluation needs
        try:
            make()
        except (*USER_ERRORS, TypeError, ValueError) as error:
            for line in str(error).splitlines()[:5]:
                message = line.removeprefix(f"{where}: ").removeprefix(f"{where.partition('.')[0][:-1]} {where!r}: ")
                needs_word = ASKED in line or "environment variable" in line
                level: Level = "note" if needs_word and rule == "eval-setting" else "error"
                yield Finding(level, rule, where, printable(message, 300), "see `alignkit explain`")
