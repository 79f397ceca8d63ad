"""Gives point estimates their confidence intervals. Every number in a report is an `Estimate`."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from align.intervals import wilson

BOOTSTRAP_SEED = 0
LEFT_OUT_GROUPS = 20

RESAMPLES = 10_000
BCA_RESAMPLES = 2_000
FEW_KINDS = 64
DRAWS_AT_ONCE = 2**22


class Estimate(NamedTuple):
    """A value, its confidence interval, and how many independent items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def mean_estimate(
    values: Float[np.ndarray, " items"],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean with a percentile bootstrap interval over independent items.

    For a paired comparison pass the differences: resampling them resamples both sides together.

    Args:
        values: One value per independent item (prompt or pair). Shape (items,).
        rng: Source of randomness. Required, so that a report can be reproduced.
        level: Coverage, in (0, 1).
        resamples: Bootstrap draws.

    Raises:
        ValueError: If there are fewer than two items, a value is not finite, or `level` is outside (0, 1).

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    check_items(values, len(values), level)
    rows = max(1, DRAWS_AT_ONCE // len(values))
    sizes = [(min(rows, resamples - start), len(values)) for start in range(0, resamples, rows)]
    means = np.concatenate([values[rng.integers(len(values), size=size)].mean(axis=1) for size in sizes])
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def win_scores(
    policy: Float[np.ndarray, " prompts"], ref: Float[np.ndarray, " prompts"]
) -> Float[np.ndarray, " prompts"]:
    """Per prompt 1 where the policy's answer has the higher reward, 0 where the lower, one half for a tie."""
    return (policy > ref) + 0.5 * (policy == ref)


def bca_estimate(
    values: Float[np.ndarray, " items"],
    *,
    rng: np.random.Generator,
    clusters: Shaped[np.ndarray, " items"] | None = None,
    level: float = 0.95,
    resamples: int = BCA_RESAMPLES,
) -> Estimate:
    """Mean with a bias-corrected and accelerated bootstrap interval over independent clusters.

    Items that share a prompt are not independent: resampling them singly makes the interval too narrow. Whole clusters
    are drawn, and each draw's mean is its sum over its size. Where all clusters agree the interval has no width; for a
    share that is 0 or 1, `wilson_estimate` says more.

    Source: Efron 1987, "Better bootstrap confidence intervals", section 3; 2000 draws as in Efron and Tibshirani 1993,
    "An introduction to the bootstrap", section 14.3. Clusters: Field and Welsh 2007, "Bootstrapping clustered data".

    Args:
        values: One value per item. Shape (items,).
        rng: Source of randomness.
        clusters: Label of each item's cluster, usually its prompt; by default each item is one. Shape (items,).
        level: Coverage, in (0, 1).
        resamples: Bootstrap draws.

    Returns:
        The estimate, whose `n` counts clusters.

    Raises:
        ValueError: As `mean_estimate` does, with clusters in the place of items.
    """
    sums, sizes = cluster_sums(values, clusters)
    check_items(values, len(sums), level)
    total, size, value = sums.sum(), sizes.sum(), float(values.mean())
    left_out = (total - sums) / (size - sizes)
    if np.ptp(values) == 0:
        return Estimate(value, value, value, len(sums))
    low, high = bca_interval(value, _resampled_means(sums, sizes, rng, resamples), left_out, level=level)
    return Estimate(value, low, high, len(sums))


def cluster_sums(
    values: Float[np.ndarray, " items"], clusters: Shaped[np.ndarray, " items"] | None
) -> tuple[Float[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
    """Sum and number of the items of each cluster; without labels every item is a cluster."""
    if clusters is None:
        return values.astype(float), np.ones(len(values))
    _, index = np.unique(clusters, return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index).astype(float)


def check_items(values: Float[np.ndarray, " items"], independent: int, level: float) -> None:
    """Raise ValueError unless there are two independent items or more, all finite, and `level` is in (0, 1)."""
    if independent < 2:
        raise ValueError(f"a confidence interval needs at least 2 items, got {independent}")
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite, got {int((~np.isfinite(values)).sum())} that are not")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Means of `resamples` draws of as many clusters as there are.

    How often each of a few distinct clusters is drawn is multinomial: the same law as drawing them one by one, at a
    cost that does not grow with their number. Wins, ties and losses are such.
    """
    kinds, counts = np.unique(sums + 1j * sizes, return_counts=True)
    if len(kinds) <= FEW_KINDS:
        drawn = rng.multinomial(len(sums), counts / len(sums), size=resamples)
        return (drawn @ kinds.real) / (drawn @ kinds.imag)
    one_size = np.ptp(sizes) == 0
    rows = max(1, DRAWS_AT_ONCE // len(sums))
    means = []
    for start in range(0, resamples, rows):
        index = rng.integers(len(sums), size=(min(rows, resamples - start), len(sums)), dtype=np.uint32)
        items = sizes[0] * len(sums) if one_size else sizes[index].sum(axis=1)
        means.append(sums[index].sum(axis=1) / items)
    return np.concatenate(means)


def bca_interval(
    value: float,
    draws: Float[np.ndarray, " resamples"],
    left_out: Float[np.ndarray, " items"],
    *,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval of any smooth statistic from its bootstrap and its jackknife.

    Deviation from the first source: its normal quantiles z are replaced by √(n / (n - 1)) t, with n - 1 degrees of
    freedom, because a bootstrap of n items is too narrow by that much (the second source).

    Args:
        value: The statistic of all items.
        draws: The statistic of each bootstrap draw.
        left_out: The statistic without each independent item in turn.
        level: Coverage, in (0, 1).

    Source: Efron 1987, equations 2.3 (interval), 4.1 (bias) and 6.6 (acceleration, by the jackknife); Hesterberg 2015
    (arXiv:1411.5279), section 4.3.
    """
    normal = NormalDist()
    rounding = 1e-12 * max(abs(value), float(np.abs(draws).max()))
    below = np.mean(draws < value - rounding) + 0.5 * np.mean(np.abs(draws - value) <= rounding)
    bias = normal.inv_cdf(float(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum())
    acceleration = float((pull**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + _expanded(normal.inv_cdf(tail), len(left_out))
        stretch = 1 - acceleration * z
        ends.append(normal.cdf(bias + z / stretch) if stretch > 0 else float(z > 0))
    low, high = np.quantile(draws, ends)
    return float(low), float(high)


def _expanded(z: float, n: int) -> float:
    """√(n / (n - 1)) times the quantile of Student's t with n - 1 degrees of freedom, from the normal quantile z.

    Source: Abramowitz and Stegun 1964, equation 26.7.5.
    """
    v = n - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return math.sqrt(n / v) * t


def paired_difference(
    first: Float[np.ndarray, " items"],
    second: Float[np.ndarray, " items"],
    *,
    rng: np.random.Generator,
    clusters: Shaped[np.ndarray, " items"] | None = None,
    level: float = 0.95,
    resamples: int = BCA_RESAMPLES,
) -> Estimate:
    """Mean of first - second over the same items, with the interval of `bca_estimate` on the differences."""
    return bca_estimate(first - second, rng=rng, clusters=clusters, level=level, resamples=resamples)


def wilson_estimate(wins: float | int, n: int, *, level: float = 0.95) -> Estimate:
    """Share `wins / n` with Wilson's score interval, which has a width where every item says the same.

    Items are independent. Ties count one half in `wins`; the interval is then wider than it need be. See
    `align.intervals.wilson`.

    Raises:
        ValueError: If `n` is not positive, `wins` is outside [0, n], or `level` is outside (0, 1).
    """
    if n < 1 or not 0 <= wins <= n:
        raise ValueError(f"wins must be in [0, n] with n at least 1, got {wins} of {n}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    low, high = wilson(wins, n, level=level)
    return Estimate(wins / n, low, high, n)


def rng_of_report() -> np.random.Generator:
    """A fresh generator for each estimate, so that no estimate depends on which others were made."""
    return np.random.default_rng(BOOTSTRAP_SEED)


def left_out(texts: Sequence[str], statistic: Callable[[Sequence[str]], float]) -> Estimate:
    """A statistic in [0, 1] of a set of texts, with a normal interval from leaving out one of 20 groups at a time.

    A bootstrap would repeat texts, which by itself lowers the share of distinct n-grams.

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
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(texts))


def share_estimate(
    values: Float[np.ndarray, " items"],
    clusters: Shaped[np.ndarray, " items"] | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Estimate:
    """Mean of verdicts: right or wrong, won or lost, a tie or a doubt anything between 0 and 1.

    The interval is Wilson's if all items are alike, if there is one cluster, or if every item is a cluster of its own
    and 0 or 1; otherwise it is BCa over clusters. It never has zero width.

    Args:
        values: In [0, 1]. Shape (items,), at least one.
        clusters: Label of each item's cluster, usually its prompt; by default each item is one. Shape (items,).
        rng: Source of randomness of the bootstrap.
        level: Coverage, in (0, 1).
    """
    independent = len(values) if clusters is None else len(np.unique(clusters))
    certain = independent == len(values) and np.isin(values, (0.0, 1.0)).all()
    if certain or independent == 1 or np.ptp(values) == 0:
        return wilson_estimate(float(values.mean()) * independent, independent, level=level)
    return bca_estimate(values, rng=rng, clusters=clusters, level=level)
