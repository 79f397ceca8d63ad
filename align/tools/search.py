"""Searches a small corpus in a file: as a tool, and as an environment that says itself what its answers are worth."""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.errors import RunError
from align.rewards.texts import has_value, stands_in, words_of

K1, B = 1.2, 0.75
"""Constants of BM25: how soon a repeated word counts no more, and how much the length of a passage counts."""
NOTHING = "Nothing was found."


class Corpus:
    """Passages, ranked by BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework").

    Args:
        passages: Their texts; of equal scores the earlier comes first.
    """

    def __init__(self, passages: list[str]) -> None:
        self.passages = passages
        self.counts = [Counter(words_of(text)) for text in passages]
        self.mean = sum(count.total() for count in self.counts) / len(passages)
        self.within = Counter(word for count in self.counts for word in count)

    def scores(self, query: str) -> list[float]:
        """What each passage scores."""
        asked = set(words_of(query)) & set(self.within)
        rare = {w: math.log(1 + (len(self.counts) - self.within[w] + 0.5) / (self.within[w] + 0.5)) for w in asked}
        return [
            math.fsum(
                rare[w] * count[w] * (K1 + 1) / (count[w] + K1 * (1 - B + B * count.total() / self.mean)) for w in asked
            )
            for count in self.counts
        ]

    def search(self, query: str, most: int) -> list[str]:
        """The best passages, at most so many; none that has no word of the query."""
        scores = self.scores(query)
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        return [self.passages[place] for place in order[:most] if scores[place] > 0]


def read_corpus(path: str) -> Corpus:
    """The corpus of a JSONL file whose rows have a `text`; read once while the file stays as it is.

    Raises:
        RunError: If it is not there, or not such a file.
    """
    try:
        return _read(path, Path(path).stat().st_mtime_ns)
    except OSError as error:
        raise RunError(f"corpus {path}: cannot be read: {error.strerror}; name a JSONL file with `path`") from None


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> Corpus:
    passages = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise RunError(f"corpus {path}: not UTF-8 text; write it again as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise RunError(f'corpus {path}, line {number}: expected {{"text": "..."}}, a passage; mend or remove it')
        passages.append(text)
    if not passages:
        raise RunError(f"corpus {path}: holds no passage")
    return Corpus(passages)


@dataclass
class Search:
    """Looks words up in a corpus, and returns the passages that fit best."""

    path: str
    """A JSONL file whose rows have a `text`."""
    passages: int = 1
    """How many are returned, at most."""

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise ValueError(f"passages: must be at least 1, got {self.passages}")

    def tool(self) -> Callable[..., Any]:
        """The tool, over the corpus as the file now is.

        Raises:
            RunError: If the corpus cannot be read.
        """
        corpus = read_corpus(self.path)

        def search(query: str) -> str:
            """Search a collection of short passages.

            Args:
                query: Words to look for.

            Returns:
                The passages that fit best.
            """
            return "\n".join(corpus.search(str(query), self.passages)) or NOTHING

        return search


@dataclass
class SearchEnvironment:
    """A search of its own for each rollout: worth 1 if the row's `answer` stands in what was found, else 0; None without one.

    Whether the policy then says the answer is not looked at: the environment sees the calls, not the text.
    """

    path: str
    """A JSONL file whose rows have a `text`."""
    passages: int = 1
    """How many are returned to a call, at most."""
    _found: list[str] = field(default_factory=list, init=False)
    _answer: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.passages < 1:
            raise ValueError(f"passages: must be at least 1, got {self.passages}")

    def reset(self, answer: Any = None, **row: Any) -> None:
        """Begin a rollout for a row of the data; nothing is added to its prompt.

        Raises:
            RunError: If the corpus cannot be read.
        """
        read_corpus(self.path)
        self._answer, self._found = answer, []

    def search(self, query: str) -> str:
        """Search a collection of short passages.

        Args:
            query: Words to look for.

        Returns:
            The passages that fit best.
        """
        found = read_corpus(self.path).search(str(query), self.passages)
        self._found += found
        return "\n".join(found) or NOTHING

    def get_reward(self) -> float | None:
        """What the rollout is worth."""
        if not has_value(self._answer):
            return None
        return float(stands_in(str(self._answer), "\n".join(self._found)))
