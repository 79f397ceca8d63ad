"""The reward that a recipe names: one of ours, or a function of an installed package that its user has allowed."""

import importlib
import importlib.util
import math
from collections.abc import Callable, Collection, Sequence
from importlib import metadata
from numbers import Real
from pathlib import Path
from typing import Any

from ..rundir import RunError
from .sentiment import positive_sentiment

Reward = Callable[..., Sequence[float]]

REWARDS: dict[str, Reward] = {"positive_sentiment": positive_sentiment}
"""Rewards that a recipe's `eval.gold_reward` can name."""


def load_reward(name: str, allowed: Collection[str] = ()) -> Reward:
    """The reward that a recipe names.

    A recipe may come from a stranger, so it cannot run code: beyond `REWARDS` it can name MODULE:FUNCTION, which is
    imported only if whoever evaluates has allowed this very string, and only from an installed package, never from a
    file that happens to lie in the working directory.

    Args:
        name: A key of `REWARDS`, or MODULE:FUNCTION, which is called with `completions=[...]` alone.
        allowed: What was given with `--allow`.

    Raises:
        RunError: If the name is unknown, is not allowed, is not of an installed package, or is no function.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise RunError(f"eval.gold_reward: unknown, got {name!r}; one of {', '.join(REWARDS)}, or MODULE:FUNCTION")
    if name not in allowed:
        raise RunError(
            f"eval.gold_reward: {name!r} would run code that the recipe names; if you know it, add --allow {name}"
        )
    top = module.partition(".")[0]
    if not _is_installed(top):
        raise RunError(
            f"eval.gold_reward: {name!r}: no installed package brings the module {top!r} (a module of the working "
            "directory or of an editable install does not count); install it with pip"
        )
    try:
        reward = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RunError(f"eval.gold_reward: {name!r} cannot be loaded: {error}") from error
    if not callable(reward):
        raise RunError(f"eval.gold_reward: {name!r} is no function")
    return _checked(name, reward)


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


def _checked(name: str, reward: Callable[..., Any]) -> Reward:
    def checked(completions: Sequence[Any], **columns: Any) -> list[float]:
        try:
            values = list(reward(completions=completions, **columns))
        except Exception as error:
            raise RunError(f"eval.gold_reward: {name!r} failed: {type(error).__name__}: {error}") from error
        numbers = [isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in values]
        if len(values) != len(completions) or not all(numbers):
            raise RunError(
                f"eval.gold_reward: {name!r} must give one finite number for each of the answers, got {values[:10]}"
            )
        return [float(v) for v in values]

    return checked
