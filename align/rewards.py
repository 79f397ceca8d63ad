"""Gold rewards: functions of the text alone, with TRL's reward signature, computed without a network."""

import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Collection, Sequence
from functools import cache
from importlib import metadata
from numbers import Real
from pathlib import Path
from typing import Any

from .rundir import RunError

MIN_WORDS, MAX_WORDS = 5, 60
MIN_DISTINCT_TRIGRAMS = 0.9
FAILED_CHECK = -1.0

Reward = Callable[..., Sequence[float]]


def positive_sentiment(completions: Sequence[str | Sequence[dict[str, str]]], **_: Any) -> list[float]:
    """How positive an answer sounds, in [-1, 1]: the mean over its sentences of VADER's compound score.

    The mean over sentences keeps length from paying: adding a second glowing sentence to a glowing one changes
    nothing. An answer gets -1 outright if it has fewer than 5 or more than 60 words, if fewer than 90% of its word
    trigrams are distinct (repetition), or if fewer than half of its characters are letters.

    Where it can be fooled: it reads words, not meaning. Gushing off-topic praise scores well, "not bad at all" and
    irony are misread, and it is blind to truth. A policy that has learnt it is friendlier, not better.

    Source: Hutto and Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social media
    text" (ICWSM), as shipped in the package `vadersentiment`.

    Args:
        completions: Answers, each a string or a list of chat messages (their contents are joined).
        **_: Columns that TRL passes to every reward function; not used.

    Returns:
        One reward per answer, in [-1, 1].

    Raises:
        ImportError: If `vadersentiment` is not installed.
    """
    return [_sentiment(_text(completion)) for completion in completions]


def _text(completion: str | Sequence[dict[str, str]]) -> str:
    if isinstance(completion, str):
        return completion
    return "\n".join(message["content"] for message in completion)


def _sentiment(text: str) -> float:
    words = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return FAILED_CHECK
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(trigrams)) < MIN_DISTINCT_TRIGRAMS * len(trigrams):
        return FAILED_CHECK
    if sum(character.isalpha() for character in text) < 0.5 * len(text):
        return FAILED_CHECK
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()]
    scores = [_analyzer().polarity_scores(sentence)["compound"] for sentence in sentences]
    return sum(scores) / len(scores)


@cache
def _analyzer() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # noqa: PLC0415 - optional extra
    except ImportError as error:
        raise ImportError("positive_sentiment needs VADER: pip install 'alignkit[quickstart]'") from error
    return SentimentIntensityAnalyzer()


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
