"""Defines the part of a recipe's rounds that writes rewards into prompts."""

import math
from dataclasses import dataclass
from typing import Literal

from .scores import ScoreConfig
from .sections import GIVE_REWARDS, PromptSet


@dataclass
class InContextConfig:
    """Rewards in Context: the rewards of an answer are written after its prompt, so that they can be asked for.

    The first round learns from given answers. A later one asks for rewards near the best, learns from what it obtained, and
    from some of the given answers again. Source: Yang et al. 2024 (arXiv:2402.10207), and the authors' code.
    """

    originals: PromptSet
    """The file of given answers: rows with a prompt and `completions`."""
    kept: int = 10_000
    """Of the given answers, how many a later round learns from, at most: those that are good in any reward."""
    quantile: float = 0.7
    """Answers at or above this quantile of any reward are good."""
    rule: Literal["smallest", "uniform"] = "smallest"
    """Which reward is asked for below the most: the smallest of as many draws as there are rewards, or any, alike."""
    low: float = -4.3
    """The least reward to ask for, in standard deviations of the given answers."""
    high: float = 4.3
    """The most; both are about the extremes of 100,000 standard normal draws, which the authors take."""

    def __post_init__(self) -> None:
        problems = [] if self.kept >= 0 else [f"kept: must not be negative, got {self.kept}"]
        if not 0 <= self.quantile < 1:
            problems.append(f"quantile: must be in [0, 1), got {self.quantile}")
        if not -math.inf < self.low < self.high < math.inf:
            problems.append(f"low: must be finite and below high, got {self.low} and {self.high}")
        if problems:
            raise ValueError("\n".join(problems))


def in_context_problems(score: ScoreConfig, others: dict[str, bool]) -> list[str]:
    """What else of a `rounds` section cannot be meant beside `in_context`.

    Args:
        score: Who scores.
        others: By setting, whether it is used.
    """
    compare = [name for name, judge in score.judges.items() if judge.kind not in GIVE_REWARDS]
    found = [f"score.judges.{name}: compares answers, and a reward in context is one answer's own" for name in compare]
    if score.weights:
        found.append("score.weights: each reward stands by itself in the prompt; leave it out")
    return found + [f"{name}: does nothing with in_context; leave it out" for name, used in others.items() if used]
