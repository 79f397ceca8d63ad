"""Rewards a text that sounds positive, by a lexicon."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from .texts import Text, text_of

MIN_WORDS, MAX_WORDS = 5, 60
MIN_DISTINCT_TRIGRAMS = 0.9
FAILED_CHECK = -1.0


def positive_sentiment(completions: Sequence[Text], **_: Any) -> list[float]:
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
    return [_sentiment(text_of(completion)) for completion in completions]


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
