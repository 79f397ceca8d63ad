"""Computes the confidence intervals that the audit of data, rounds of training and the evaluation show."""

import functools
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped

UNBOUNDED = (-math.inf, math.inf)
FEW = (2.5, 3.5)
"""Up to so many successes or failures of at most 50 items, and of more, the normal law of their number does not hold."""

FEWEST = 5
"""Independent items of an interval that a report prints: nothing has shown what fewer would cover."""


class Estimate(NamedTuple):
    """A value, its confidence interval, and how many independent items it rests on.

    An end is infinite where the items do not bound it: values without bounds that are all alike have no interval.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def claimed(found: Any) -> Any:
    """What was found, its estimates from fewer than `FEWEST` independent items without an interval.

    Args:
        found: An estimate, or named tuples, lists and mappings that hold some.
    """
    if isinstance(found, Estimate):
        return found if found.n >= FEWEST else Estimate(found.value, -math.inf, math.inf, found.n)
    if isinstance(found, Mapping):
        return {key: claimed(value) for key, value in found.items()}
    if isinstance(found, tuple) and hasattr(found, "_fields"):
        return type(found)(*map(claimed, found))
    return [claimed(value) for value in found] if isinstance(found, list) else found


def wilson(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Both ends of the score interval of a share, which has a width where every item says the same.

    For two or three successes or failures (see `FEW`) the end beside them is that of a Poisson count: Wilson's own is too
    near there. Least coverage over shares from .5 to .999 at 95%: 91.6 for n = 20, 93.0 for 200.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; the modification, Brown,
    Cai and DasGupta 2001, "Interval estimation for a binomial proportion", section 4.1.

    Args:
        successes: Of independent items; a tie counts one half.
        n: Items, more than 0; an effective number need not be whole.
        level: Coverage, in (0, 1).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, inflation = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / inflation
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n)) / inflation
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    few = FEW[n > 50]
    if 0 < successes <= few:
        low = min(low, _least_mean(successes, 1 - level) / n)
    if 0 < n - successes <= few:
        high = max(high, 1 - _least_mean(n - successes, 1 - level) / n)
    return (low if successes > 0 else 0.0), (high if successes < n else 1.0)


def _least_mean(count: float, tail: float) -> float:
    """The mean of a Poisson law at which `count` or more is as rare as `tail`, by bisection."""
    shape = torch.tensor(count, dtype=torch.float64)
    low, high = 0.0, count
    for _ in range(60):
        middle = (low + high) / 2
        rare = float(torch.special.gammainc(shape, torch.tensor(middle, dtype=torch.float64))) < tail
        low, high = (middle, high) if rare else (low, middle)
    return (low + high) / 2


def cluster_sums(
    values: Float[np.ndarray, " items"], clusters: Shaped[np.ndarray, " items"] | None
) -> tuple[Float[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
    """Sum and number of the items of each cluster; without labels every item is a cluster."""
    if clusters is None:
        return values.astype(float), np.ones(len(values))
    _, index = np.unique(clusters, return_inverse=True)
    return np.bincount(index, weights=values).astype(float), np.bincount(index).astype(float)


def check_items(values: Float[np.ndarray, " items"], independent: int, level: float) -> None:
    """Raise ValueError unless there are two independent items or more, all finite, and `level` is in (0, 1)."""
    if independent < 2:
        raise ValueError(f"a confidence interval needs at least 2 items, got {independent}")
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite, got {int((~np.isfinite(values)).sum())} that are not")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")


@functools.cache
def t_quantile(level: float, independent: int) -> float:
    """The quantile of Student's t by which a two-sided interval of `level` reaches beyond a mean of so many items.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: the law of t as a finite sum in the angle atan(t / √ν).
    """
    degrees = independent - 1
    odd = degrees % 2
    k = np.arange(1, (degrees + 1) // 2)
    ratios = 2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k)
    k = k[:-1] if odd else k
    ratios = ratios[: len(k)]

    def within(angle: float) -> float:
        cosine = math.cos(angle)
        series = 1.0 + float(np.cumprod(ratios * cosine**2).sum())
        if not odd:
            return math.sin(angle) * series
        return 2 / math.pi * (angle + (math.sin(angle) * cosine * series if degrees > 1 else 0.0))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < level else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def mean_estimate(
    values: Float[np.ndarray, " items"],
    clusters: Shaped[np.ndarray, " items"] | None = None,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Estimate:
    """Mean of values that are no verdicts, with the hull of Student's t interval and of Hall's, which sees skewness.

    For a paired comparison pass the differences. Items that share a prompt are not independent: give their labels. Where
    all clusters agree, each end is as far as the share of items that may differ unseen, 1 - ((1 - level) / 2)^(1/n),
    could move it: infinitely far without `bounds`.

    No bootstrap: it covers 74 to 97% where this covers 92 to 97% (`scripts/bench/quality/coverage.py`), and it needs a
    source of randomness. Hall's alone is misled by the skewness of few items, and so is the hull with t.

    Source: Student 1908; Hall 1992, "On the removal of skewness by transformation", the monotone cubic.

    Args:
        values: One per item. Shape (items,).
        clusters: Label of each item's cluster, usually its prompt; by default each item is one. Shape (items,).
        level: Coverage, in (0, 1).
        bounds: The least and the greatest that a value can be.

    Returns:
        The estimate, whose `n` counts clusters.

    Raises:
        ValueError: If there are fewer than two clusters, a value is not finite, or `level` is outside (0, 1).
    """
    sums, sizes = cluster_sums(values, clusters)
    n, value = len(sums), float(values.mean()) if len(values) else 0.0
    check_items(values, n, level)
    off = (sums - sizes * value) / sizes.mean()
    if np.ptp(off) <= 1e-12 * max(1.0, abs(value)):
        unseen = 1 - ((1 - level) / 2) ** (1 / n)
        return Estimate(value, value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value), n)
    second = float((off**2).mean())
    skew = float((off**3).mean()) / second**1.5
    spread = math.sqrt(second * n / (n - 1))
    reach = t_quantile(level, n) / math.sqrt(n)
    low = value - spread * max(reach, _untransformed(reach, skew, n))
    high = value - spread * min(-reach, _untransformed(-reach, skew, n))
    return Estimate(value, max(low, bounds[0]), min(high, bounds[1]), n)


def _untransformed(y: float, skew: float, n: int) -> float:
    """The w that Hall's cubic w + γw²/3 + γ²w³/27 + γ/(6n) turns into y."""
    if abs(skew) < 1e-6:
        return y
    return float(3 / skew * (np.cbrt(1 + skew * (y - skew / (6 * n))) - 1))
