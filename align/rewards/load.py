"""Finds the rewards that a recipe names: ours, or a function of an installed package that its user has allowed."""

import asyncio
import importlib
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import RunError
from align.findings import printable
from align.own_code import adds
from align.strict.fields import build, nearest
from align.strict.yaml_tree import Tree

from .calls import FewerCalls, FrozenAnswerer
from .clarity import Clarity
from .constraints import Constraints
from .correctness import Correctness
from .lengths import Conciseness, LengthBudget
from .relevance import Relevance
from .repetition import Repetition
from .reward_model import RewardModel
from .sentiment import positive_sentiment

Reward = Callable[..., Sequence[float | None]]
"""With TRL's signature: `reward(prompts=[...], completions=[...], **columns)`."""


class Known(NamedTuple):
    """What a recipe names by one word, and what is known of it before it is called."""

    reward: Reward | type
    """A function, or a class whose fields are the reward's options."""
    low: float
    high: float
    reads: tuple[str, ...] = ()
    """What it reads beyond the completions."""


class Rewards(dict[str, Known]):
    """Rewards by name. NAME@LABEL is the same reward under another name, so that a recipe can have it twice."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(without_label(name))

    def __missing__(self, name: str) -> Known:
        if (bare := without_label(name)) == name:
            raise KeyError(name)
        return self[bare]


def without_label(name: str) -> str:
    """The name of a reward, without what tells it from another one of this name."""
    bare, _, label = name.partition("@")
    return bare if LABEL.fullmatch(label) else name


LABEL = re.compile(r"\w+")
CALLS = "calls of tools"
"""What a reward reads that looks at an answer's calls and their results."""
REWARDS = Rewards({
    "correctness": Known(Correctness, 0, 1, ("answer",)),
    "conciseness": Known(Conciseness, 0, 1, ("completion_ids",)),
    "clarity": Known(Clarity, 0, 1),
    "length_budget": Known(LengthBudget, 0, 1, ("completion_ids",)),
    "repetition": Known(Repetition, 0, 1),
    "positive_sentiment": Known(positive_sentiment, -1, 1),
    "relevance": Known(Relevance, 0, 1, ("prompts",)),
    "constraints": Known(Constraints, 0, 1, ("instruction_id_list", "kwargs")),
    "fewer_calls": Known(FewerCalls, 0, 1, (CALLS,)),
    "frozen_answerer": Known(FrozenAnswerer, 0, 1, (CALLS, "prompts", "answer")),
    "reward_model": Known(RewardModel, -math.inf, math.inf, ("prompts",)),
})  # fmt: skip
"""Rewards that a recipe can name. With `against: reference` relevance reads the column `reference`, not the prompts."""

GOLD, LARGEST = "eval.gold_reward", 1e100
PASSED_BY_TRL = ("prompts", "completion_ids", CALLS)


def make_reward(name: str, allowed: Collection[str] = (), *, where: str = "", **options: Any) -> Reward:
    """A reward for training, as TRL calls it: `(completions, prompts=, completion_ids=, **columns) -> list`.

    Args:
        name: A key of `REWARDS`, with @LABEL if it is there twice, or MODULE:FUNCTION of an installed package, which must be
            in `allowed`. It is the reward's `__name__`, by which TRL logs it.
        allowed: The MODULE:FUNCTION that may be imported and run.
        where: What an error begins with; `GOLD` takes no None for an answer.
        **options: The reward's own settings; MODULE:FUNCTION has none.

    Raises:
        RunError: If the name is unknown or not allowed, or an option is unknown, missing or out of range.
    """
    where = where or f"reward {name!r}"
    if name not in REWARDS:
        if ":" not in name:
            raise RunError(f"{where}: unknown; {nearest(name, REWARDS)}; or MODULE:FUNCTION of an installed package")
        if options:
            raise RunError(f"{where}: takes no options, got {', '.join(options)}; fix them in the function itself")
        return _of_a_package(name, allowed, where)
    reward: Any = REWARDS[name].reward
    own, renamed = without_label(name) in adds("rewards"), without_label(name) != name
    if not isinstance(reward, type):
        if options:
            raise RunError(f"{where}: takes no options, got {', '.join(options)}")
        return _checked(name, reward, where) if own or renamed else reward
    if not is_dataclass(reward):
        raise RunError(
            f"{where}: {reward.__name__} is a class and no dataclass, whose fields would be its options; decorate it with "
            "@dataclasses.dataclass, or register one of it"
        )
    tree = Tree(where)
    made = build(reward, options, (), tree)
    if tree.problems:
        raise RunError("\n".join(tree.problems))
    if own:
        return _checked(name, made, where)
    if renamed:
        made.__name__ = name
    return made


def columns_of(name: str, **options: Any) -> tuple[str, ...]:
    """The columns of the data that a reward of ours reads, by its name and options."""
    if without_label(name) == "relevance" and options.get("against") == "reference":
        return ("reference",)
    return tuple(column for column in REWARDS[name].reads if column not in PASSED_BY_TRL) if name in REWARDS else ()


def load_reward(name: str, allowed: Collection[str] = ()) -> Reward:
    """The reward that a recipe's `eval.gold_reward` names; it is called with `completions=[...]` alone.

    A recipe may come from a stranger, so it cannot run code: beyond `REWARDS` it can name MODULE:FUNCTION, which is
    imported only if whoever evaluates has allowed this very string, and only from an installed package, never from a
    file that happens to lie in the working directory.

    Args:
        name: A key of `REWARDS` that reads completions alone, or MODULE:FUNCTION.
        allowed: What was given with `--allow`.

    Raises:
        RunError: If the name is unknown, reads more than completions, is not allowed, is not of an installed package,
            or is no function.
    """
    where = GOLD
    if name in REWARDS:
        if REWARDS[name].reads:
            free = ", ".join(key for key, known in REWARDS.items() if not known.reads)
            raise RunError(
                f"{where}: {name!r} reads {', '.join(REWARDS[name].reads)}, which an evaluation does not pass; one of {free}, "
                "or MODULE:FUNCTION"
            )
        return make_reward(name, where=where)
    if ":" not in name:
        raise RunError(f"{where}: unknown, got {name!r}; one of {', '.join(REWARDS)}, or MODULE:FUNCTION")
    return _of_a_package(name, allowed, where)


def _of_a_package(name: str, allowed: Collection[str], where: str) -> Reward:
    module, _, function = name.partition(":")
    if name not in allowed:
        raise RunError(f"{where}: {name!r} would run code that the recipe names; if you know it, add --allow {name}")
    top = module.partition(".")[0]
    if not _is_installed(top):
        raise RunError(
            f"{where}: {name!r}: no installed package brings the module {top!r} (a module of the working "
            "directory or of an editable install does not count); install it with pip, or give its file: --allow-file FILE.py"
        )
    try:
        reward = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # code of others: it may raise anything, and end Python
        raise RunError(f"{where}: {name!r} cannot be loaded: {told(error)}") from error
    if not callable(reward):
        raise RunError(f"{where}: {name!r} is no function")
    return _checked(name, reward, where)


def _is_installed(module: str) -> bool:
    """Whether all that `import module` would read lies where a distribution that brings it is installed."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # an empty name, or a module without a spec
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    here = Path.cwd().resolve()
    roots = {
        Path(str(metadata.distribution(name).locate_file(""))).resolve()
        for name in metadata.packages_distributions().get(module, ())
    } - {here}
    return bool(places) and all(any(Path(place).resolve().is_relative_to(r) for r in roots) for place in places)


def _checked(name: str, reward: Callable[..., Any], where: str) -> Reward:
    gold = where == GOLD

    def checked(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        try:
            values = awaited(reward(completions=completions, **columns))
            if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
                raise TypeError(f"it gave {type(values).__name__}, not a list of numbers")
            values = list(values)
        except (Exception, SystemExit) as error:  # sys.exit(0) would end the training as if it were done
            raise RunError(f"{where}: {name!r} failed: {told(error)}") from error
        if len(values) != len(completions) or not all(is_reward(v) and not (v is None and gold) for v in values):
            raise RunError(
                f"{where}: {name!r} must give one finite number{'' if gold else ' or None'} for each of the answers, "
                f"got {printable(repr(values[:10]), 200)}"
            )
        return [None if v is None else reward_value(v) for v in values]

    checked.__name__ = name
    return checked


def awaited(given: Any) -> Any:
    """What a function gave, or what the coroutine gives that it gave; it is run in a thread, as a notebook has a loop of its own."""
    if not inspect.iscoroutine(given):
        return given
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, given).result()


def told(error: BaseException) -> str:
    """What code of others raised, for a message."""
    return f"{type(error).__name__}: {printable(str(error), 300)}"


def is_reward(value: Any) -> bool:
    """Whether it says what an answer is worth, or None, that nothing is said of it."""
    return value is None or not math.isnan(reward_value(value))


def reward_value(value: Any) -> float:
    """One reward as a float: of a number, of a truth value, of a scalar of torch or NumPy. NaN for anything else.

    Beyond ±`LARGEST` it is none either: intervals square it.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    return float(value) if isinstance(value, int | float) and abs(value) <= LARGEST else math.nan
