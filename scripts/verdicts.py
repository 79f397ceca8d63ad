"""A measured figure of a claim, and the verdict that its interval gives.

The verdict follows from the interval: the claim *held* if all of it lies on the claim's side of the bar, it *did not hold* if all
of it lies on the other, and else it *cannot be told* at this size. The size that would tell is that at which an interval of this
kind, around a value as large as the one measured, ends at the bar: a guess from the value measured, which is uncertain itself.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.statistics.intervals import over_seeds, t_quantile

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "scripts" / "bench" / "results"
HELD, NOT, OPEN = "held", "did not hold", "cannot be told at this size"
LEVEL = 0.95
MOST_SEEDS = 1000


class Figure(NamedTuple):
    """A measured value, with its interval."""

    what: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    """What n counts: seeds, prompts, pairs, problems, rounds; or nothing, where the value is exact."""
    bar: float = 0.0
    """The claim says that the value is above it."""

    @property
    def verdict(self) -> str:
        """By the interval alone."""
        return HELD if self.low > self.bar else NOT if self.high < self.bar else OPEN

    @property
    def enough(self) -> str:
        """How many would tell, if the value is as measured."""
        half, away = (self.high - self.low) / 2, abs(self.value - self.bar)
        if self.verdict != OPEN or not self.unit:
            return ""
        if away < half / 100:
            return "no size, if it is as small as this"
        if self.unit != "seeds":
            return f"{math.ceil(self.n * (half / away) ** 2)} {self.unit}"
        deviation = half * math.sqrt(self.n) / t_quantile(LEVEL, self.n)
        seeds = (n for n in range(2, MOST_SEEDS) if t_quantile(LEVEL, n) * deviation / math.sqrt(n) < away)
        return f"{next(seeds, f'over {MOST_SEEDS}')} seeds"

    def told(self) -> str:
        """With its interval, and of how many."""
        interval = "" if self.low == self.high else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}{f', {self.n} {self.unit}' if self.unit else ''}"


class Claim(NamedTuple):
    """What is said, by whom, and what was measured."""

    source: str
    says: str
    setting: str
    figures: list[Figure]
    command: str
    result: str
    """File of `scripts/bench/results`."""
    picture: str | None = None


def measured(what: str, one: dict[str, Any], unit: str, *, bar: float = 0.0, sign: int = 1) -> Figure:
    """A figure of a result file: value, low, high and n."""
    low, high = sorted((sign * one["low"], sign * one["high"]))
    return Figure(what, sign * one["value"], low, high, one.get("n", 0), unit, bar)


def of_seeds(what: str, values: list[float]) -> Figure:
    """The mean over seeds, by Student's t."""
    one = over_seeds(np.array(values), level=LEVEL)
    return Figure(what, one.value, one.low, one.high, one.n, "seeds")


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
