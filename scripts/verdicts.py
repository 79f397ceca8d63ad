"""A measured figure of a claim, and the verdict that its interval gives.

The verdict follows from the interval: the claim *held* if all of it lies on the claim's side of the bar, it *did not hold* if all
of it lies on the other, and else it *cannot be told* at this size. The size that would tell is that at which an interval of this
kind, around a value as large as the one measured, ends at the bar: a guess from the value measured, which is uncertain itself.

Beside it stands Holm's p over the figures of the claim: each figure's own p is that of Student's t whose interval is the measured one, by
the side of the interval that faces the bar.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

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
    def p_value(self) -> float | None:
        """Two-sided, that the value is at the bar; None where nothing was drawn, or the interval is a range over rounds."""
        if not self.unit or self.unit == "rounds":
            return None
        facing = self.value - self.low if self.value > self.bar else self.high - self.value
        if facing <= 0:
            return None
        return float(2 * stats.t.sf(abs(self.value - self.bar) / facing * t_quantile(LEVEL, self.n), self.n - 1))

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

    def holm(self) -> list[float | None]:
        """The p of each figure, corrected for the number of figures (Holm 1979)."""
        own = [(one.p_value, place) for place, one in enumerate(self.figures)]
        tested = sorted((p, place) for p, place in own if p is not None)
        found: list[float | None] = [None] * len(own)
        largest = 0.0
        for rank, (p, place) in enumerate(tested):
            largest = max(largest, min(1.0, (len(tested) - rank) * p))
            found[place] = largest
        return found

    def lost(self) -> int:
        """How many verdicts do not stay after the correction."""
        pairs = zip(self.figures, self.holm(), strict=True)
        return sum(one.verdict != OPEN and p is not None and p >= 1 - LEVEL for one, p in pairs)


def measured(what: str, one: dict[str, Any], unit: str, *, bar: float = 0.0, sign: int = 1) -> Figure:
    """A figure of a result file: value, low, high and n."""
    low, high = sorted((sign * one["low"], sign * one["high"]))
    return Figure(what, sign * one["value"], low, high, one.get("n", 0), unit, bar)


def over(what: str, one: dict[str, Any], unit: str, within: str, bar: float = 0.0, sign: int = 1) -> Figure:
    """By seeds, where there are three; else by what each seed was measured on, whose interval is at the key `within`."""
    seeds = len(one["each"]) > 2
    return measured(what, one["over seeds" if seeds else within], "seeds" if seeds else unit, bar=bar, sign=sign)


def of_seeds(what: str, values: list[float]) -> Figure:
    """The mean over seeds, by Student's t."""
    one = over_seeds(np.array(values), level=LEVEL)
    return Figure(what, one.value, one.low, one.high, one.n, "seeds")


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
