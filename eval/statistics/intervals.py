"""Estimates a statistic with its confidence interval. Every number in a report is an `Estimate`.

One rule holds for all kinds of numbers: an interval inverts a test whose variance does not vanish when the items happen to
agree, and it is chosen by what a number can be, never by what it turned out to be. Means are in `align.intervals`, which
rounds of training need too, and shares in `shares`.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from align.intervals import UNBOUNDED, Estimate, check_items, claimed, cluster_sums, mean_estimate, t_quantile

__all__ = [
    "UNBOUNDED",
    "Estimate",
    "check_items",
    "claimed",
    "cluster_sums",
    "left_out",
    "mean_estimate",
    "over_seeds",
    "rng_of_report",
    "t_quantile",
    "win_scores",
]

SEED = 0
LEFT_OUT_GROUPS = 20
ALIKE = 1e-12


def win_scores(
    policy: Float[np.ndarray, " prompts"], ref: Float[np.ndarray, " prompts"]
) -> Float[np.ndarray, " prompts"]:
    """Per prompt 1 where the policy's answer has the higher reward, 0 where the lower, one half for a tie."""
    return (policy > ref) + 0.5 * (policy == ref)


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
    if spread <= ALIKE:  # what rounding leaves of no spread at all
        unseen = 1 - 0.025 ** (1 / len(texts))
        return Estimate(value, value * (1 - unseen), value + unseen * (1 - value), len(texts))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(texts))
