"""Looks at what a recipe scores with: rewards of training, tools and environments, and all that its `eval` section names."""

import contextlib
import copy
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from align.data.loading import TRAIN
from align.errors import USER_ERRORS, RunError
from align.findings import Finding, Level, printable
from align.judges.from_recipe import prepare_judge, prepare_judges
from align.methods import METHODS
from align.models.loading import load_tokenizer
from align.recipe.loading import Recipe
from align.rewards import FrozenAnswerer, make_reward
from align.rewards.load import REWARDS, columns_of, load_reward
from align.rewards.texts import has_value
from align.tools import make_environment, make_tool, read_calls
from align.tools.load import ROUTE
from align.weighting.advantages import make_estimator
from align.weighting.single_stream import SingleStream, check_initial

PROMPT_SETS = ("instructions", "refusals")
ASKED = "--allow"
TOOL, INITIAL = "tool", "initial-answers"


def inspect_rewards(recipe: Recipe, sets: Mapping[str, Dataset], allow: Collection[str]) -> list[Finding]:
    """Rewards and a judge that cannot be made, or read a column that is not there or holds nothing.

    Args:
        recipe: The recipe.
        sets: Normalised rows, by the name of their set.
        allow: The MODULE:FUNCTION that may be imported.
    """
    found, judge = _of_weights(recipe), recipe.judge
    named = [(f"rewards.{name}", name, options) for name, options in recipe.rewards.items()]
    if judge is not None:
        make = functools.partial(prepare_judge, "judge", judge, recipe.model, list(allow), Path("judge.jsonl"))
        found += _said("judge", "judge", make)
        named += [("judge", str(judge.reward), judge.options or {})] if judge.kind == "reward" else []
    for where, name, options in named:
        if where != "judge":
            found += _said(where, "reward", lambda name=name, options=options: make_reward(name, allow, **options))
            if name in REWARDS and REWARDS[name].reward is FrozenAnswerer and not found:
                found += _said(where, "reward", lambda o=options: load_tokenizer(FrozenAnswerer(**o).settings))
        for column in columns_of(name, **options):
            for of, dataset in sets.items():
                found += _of_column(name, column, of, dataset)
    return found


def _of_weights(recipe: Recipe) -> list[Finding]:
    """Weights that are not one for each reward. Own code may be no objective, and environments may own some: nothing is said."""
    weights, names = getattr(recipe.train, "reward_weights", None), list(recipe.rewards)
    if weights is None or len(weights) == len(names) or not set(names) <= set(REWARDS) or recipe.environments:
        return []
    message = f"{len(weights)}, and there are {len(names)} rewards ({', '.join(names)})"
    return [Finding("error", "reward-weights", "train.reward_weights", message, "give one for each reward")]


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


def inspect_initial(recipe: Recipe, sets: Mapping[str, Dataset], allow: Collection[str]) -> list[Finding]:
    """Scored answers that a stream of single answers is to begin with, to other prompts, or by other rewards.

    Args:
        recipe: The recipe.
        sets: Normalised rows, by the name of their set.
        allow: The MODULE:FUNCTION that may be imported.
    """
    train: Any = recipe.train
    stream = make_estimator(train.estimator, **train.estimator_options) if hasattr(train, "estimator") else None
    if not isinstance(stream, SingleStream) or not stream.initial:
        return []
    where, found = "train.estimator_options", list[Finding]()
    if not recipe.environments:  # whose rewards are named once they are made
        functions = [make_reward(name, allow, **options) for name, options in recipe.rewards.items()]
        names = [f.__name__ for f in functions if getattr(f, "aux", None) is None]
        found += _said(where, INITIAL, lambda: stream.begin(names))
    return found + list(_said(where, INITIAL, lambda: check_initial(sets[TRAIN], stream)))


def inspect_tools(recipe: Recipe, sets: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """What keeps the policy from calling tools, or an environment from serving the rows.

    Args:
        recipe: The recipe.
        sets: Normalised rows, by the name of their set.
        tokenizer: The model's; it stays as it is.
    """
    if not recipe.tools and not recipe.environments:
        return []
    found, owned = list[Finding](), False
    for name, options in recipe.tools.items():
        found += _said(f"tools.{name}", TOOL, lambda name=name, options=options: make_tool(name, **options))
    for name, options in recipe.environments.items():
        where = f"environments.{name}"
        made = list(_said(where, TOOL, lambda name=name, options=options: make_environment(name, **options)))
        if not made:
            environment: Any = make_environment(name, **options)()
            owned = owned or hasattr(environment, "get_reward")
            made = list(_said(where, TOOL, lambda e=environment, name=name: _begin(e, _row_of(sets, name))))
        found += made
    if recipe.environments and not recipe.rewards and not owned:
        message = "none of them owns a reward (`get_reward`), and there are no `rewards`"
        found.append(Finding("error", TOOL, "environments", message, "add `rewards`"))
    for where, dataset in sets.items():
        if len(dataset) and isinstance(dataset[0]["prompt"], str):
            message = "the prompts are plain text, and calls of tools are messages of a chat"
            found.append(Finding("error", TOOL, where, message, "write each prompt as a list of messages"))
        found += _of_route(recipe, where, dataset)
    return found + list(_said("tools", TOOL, lambda: _parses_calls(tokenizer)))


def _begin(environment: Any, row: Mapping[str, Any]) -> None:
    try:
        environment.reset(**row)
    except RunError:
        raise
    except Exception as error:  # code of others
        told = printable(f"{type(error).__name__}: {error}", 200)
        raise RunError(f"`reset` fails on the first row that it serves: {told}") from error


def _row_of(sets: Mapping[str, Dataset], environment: str) -> dict[str, Any]:
    """The first row that an environment serves, without the column that says so; empty if there is none."""
    for dataset in sets.values():
        rows: Any = dataset
        for row in rows:
            if row.get(ROUTE, environment) == environment:
                return {key: value for key, value in row.items() if key != ROUTE}
    return {}


def _of_route(recipe: Recipe, where: str, dataset: Dataset) -> Iterator[Finding]:
    known = recipe.environments
    if ROUTE not in dataset.column_names:
        if len(known) > 1:
            message = f"no column {ROUTE!r}, which says which of the environments {', '.join(known)} is a row's"
            yield Finding("error", TOOL, where, message, "add it, or keep one environment")
        return
    foreign = [n for n, value in enumerate(dataset[ROUTE], start=1) if value not in known] if known else []
    if foreign:
        message = f"{len(foreign)} of {len(dataset)} rows have an {ROUTE!r} that is none of {', '.join(known)}"
        yield Finding("error", TOOL, where, message, "name one of them in each row", tuple(foreign))


def _parses_calls(tokenizer: PreTrainedTokenizerBase) -> None:
    """That a template holds tools is not enough: calls must be read, too."""
    read_calls(copy.deepcopy(tokenizer))


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
