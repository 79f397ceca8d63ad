"""Estimates a mean with its confidence interval. Every number in a report is an `Estimate`.

One rule holds for all kinds of numbers: an interval inverts a test whose variance does not vanish when the items happen to
agree, and it is chosen by what a number can be, never by what it turned out to be. Shares are in `shares`.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

SEED = 0
LEFT_OUT_GROUPS = 20
UNBOUNDED = (-math.inf, math.inf)


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


def win_scores(
    policy: Float[np.ndarray, " prompts"], ref: Float[np.ndarray, " prompts"]
) -> Float[np.ndarray, " prompts"]:
    """Per prompt 1 where the policy's answer has the higher reward, 0 where the lower, one half for a tie."""
    return (policy > ref) + 0.5 * (policy == ref)


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


def t_quantile(level: float, independent: int) -> float:
    """The quantile of Student's t by which a two-sided interval of `level` reaches beyond a mean of so many items."""
    return float(stats.t.ppf((1 + level) / 2, independent - 1))


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


def over_seeds(values: Float[np.ndarray, " seeds"], *, level: float = 0.95) -> Estimate:
    """Mean over a few seeds with Student's t interval; three seeds can show a difference of 3.3 standard deviations.

    Raises:
        ValueError: As `mean_estimate` does, with seeds in the place of items.
    """
    check_items(values, len(values), level)
    value = float(values.mean())
    if np.ptp(values) == 0:
        return Estimate(value, -math.inf, math.inf, len(values))
    half = t_quantile(level, len(values)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(value, value - half, value + half, len(values))


def rng_of_report() -> np.random.Generator:
    """A fresh generator for each estimate, so that no estimate depends on which others were made."""
    return np.random.default_rng(SEED)


def left_out(texts: Sequence[str], statistic: Callable[[Sequence[str]], float]) -> Estimate:
    """A statistic in [0, 1] of a set of texts, with a normal interval from leaving out one of 20 groups at a time.

    A bootstrap would repeat texts, which by itself lowers the share of distinct n-grams. Where no group moves it, the
    ends are those of the unseen items in `mean_estimate`.

    Source: the jackknife of Quenouille and Tukey, over groups; Efron and Tibshirani 1993, section 11.5.

    Raises:
        ValueError: If there are fewer than two texts.
    """
    groups = min(LEFT_OUT_GROUPS, len(texts))
    if groups < 2:
        raise ValueError(f"a confidence interval needs at least 2 texts, got {len(texts)}")
    values = np.array(
        [statistic([text for i, text in enumerate(texts) if i % groups != group]) for group in range(groups)]
    )
    spread = math.sqrt((groups - 1) / groups * float(((values - values.mean()) ** 2).sum()))
    value, half = statistic(texts), NormalDist().inv_cdf(0.975) * spread
    if spread == 0:
        unseen = 1 - 0.025 ** (1 / len(texts))
        return Estimate(value, value * (1 - unseen), value + unseen * (1 - value), len(texts))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(texts))
