"""Rewards an answer that does not repeat itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .texts import Text, text_of

_WORD = re.compile(r"\w{1,30}(?!\w)|\w")  # of a longer word its characters


@dataclass
class Repetition:
    """Share of an answer's n-grams of words that are distinct, in [0, 1]: 1 without repetition, 0 for no words.

    An answer of fewer than `n` words has one n-gram: all of it. Words longer than 30 characters count by character, so
    a loop without spaces is a loop too.

    Where it can be fooled: it does not read. Varied nonsense earns 1, and so does a single word, so it must not be the
    only objective; a long answer that must repeat itself (a table, a proof by cases) is marked down.

    Source: the trigram ratio of R³, Kim and Seo 2024 (arXiv:2402.03469); `Relevance` offers the product.
    """

    n: int = 3
    """Words in an n-gram."""

    __name__ = "repetition"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n: must be at least 1, got {self.n}")

    def __call__(self, completions: Sequence[Text], prompts: Any = None, **_: Any) -> list[float]:
        """One reward per completion, in [0, 1]."""
        return [distinct_ngrams(text_of(completion), self.n) for completion in completions]


def distinct_ngrams(text: str, n: int) -> float:
    """Distinct n-grams of words over all of them; 0 for a text without words."""
    words = words_of(text)
    if not words:
        return 0.0
    grams = [tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]
    return len(set(grams)) / len(grams)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case; of a word longer than 30 characters its characters."""
    return _WORD.findall(text.lower())
