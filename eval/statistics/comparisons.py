"""Compares policies pair by pair on the same items: all differences of a report are one family, whose claims hold at once.

P-values and intervals come from one law, that of the least p-value of all differences when nothing differs, so that they
cannot disagree: a corrected p-value is at most 0.05 where the joint interval leaves out 0, and nowhere else.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from .intervals import Estimate, check_items, claimed, cluster_sums, mean_estimate
from .power import detectable
from .shares import share_difference

DRAWS, DRAWS_AT_ONCE = 4_999, 2**22
SURE = -35.0
"""Logarithm of the least p-value of one difference that is told apart from 0."""


class Comparison(NamedTuple):
    """Two sides on the same items; interval and p-value are corrected for everything that a report compares."""

    first: str
    second: str
    difference: Estimate
    """Mean of first - second. The intervals of all comparisons hold at once."""
    p_value: float
    detectable: float
    """The least difference that would have been found in 80% of cases."""


class Compared(NamedTuple):
    """Every pair of sides on one measure, before anything is said of them."""

    pairs: list[tuple[str, str]]
    differences: Float[np.ndarray, "items pairs"]
    """Of first - second."""
    labels: Shaped[np.ndarray, " items"]
    """The prompt of each item."""
    shares: bool
    """Whether they are differences of verdicts."""
    span: float = math.inf
    """How far apart two values can be."""

    def estimate(self, pair: int, level: float) -> Estimate:
        """Of one pair by itself."""
        found = difference_estimate(
            self.differences[:, pair], self.labels, shares=self.shares, span=self.span, level=level
        )
        return claimed(found)


def difference_estimate(
    differences: Float[np.ndarray, " items"],
    clusters: Shaped[np.ndarray, " items"] | None = None,
    *,
    shares: bool,
    span: float = math.inf,
    level: float = 0.95,
) -> Estimate:
    """Mean of paired differences: of verdicts, or of other values that are at most `span` apart."""
    if shares:
        return share_difference(differences, clusters, level=level)
    return mean_estimate(differences, clusters, level=level, bounds=(-span, span))


def prompt_labels(prompts: Sequence[Any]) -> Shaped[np.ndarray, " items"]:
    """Each prompt as a text, by which items of one prompt are known to belong together."""
    return np.array([json.dumps(prompt) for prompt in prompts])


def compared(
    scores: Mapping[str, Float[np.ndarray, " items"]],
    labels: Shaped[np.ndarray, " items"],
    *,
    shares: bool = False,
    span: float = math.inf,
) -> Compared:
    """Every pair of sides.

    Args:
        scores: By side, one value per item, items in the same order.
        labels: The prompt of each item.
        shares: Whether the values are verdicts.
        span: How far apart two of them can be.

    Raises:
        ValueError: If there are fewer than two sides or two prompts, or the numbers of items differ.
    """
    if len(scores) < 2 or {len(values) for values in scores.values()} != {len(labels)}:
        found = {name: len(values) for name, values in scores.items()}
        raise ValueError(f"scores: two sides or more with {len(labels)} items each, got {found}")
    pairs = list(combinations(scores, 2))
    differences = np.stack([scores[first] - scores[second] for first, second in pairs], axis=1)
    check_items(differences.ravel(), len(np.unique(labels)), 0.95)
    return Compared(pairs, differences, labels, shares, span)


def corrected(
    family: Mapping[str, Compared], *, rng: np.random.Generator, level: float = 0.95, draws: int = DRAWS
) -> dict[str, list[Comparison]]:
    """Everything that is compared, by measure, as one family.

    The law is that of random signs of the prompts, which measures of the same prompts share: each difference is centred
    and studentised anew in each draw, and the least of the p-values of Student's t is kept. Its quantile is the
    level of each difference, whose interval is that of its own kind. The p-value of a difference by itself is the least
    at which that interval leaves out 0; corrected, it is the share of draws with as small a one.

    Source: Westfall and Young 1993, "Resampling-based multiple testing", section 2.3.

    Args:
        family: By measure.
        rng: Source of randomness of the signs.
        level: Joint coverage of all intervals, in (0, 1).
        draws: Random choices of signs.
    """
    family = {name: _numbered(one) for name, one in family.items()}
    law = joint_law(list(family.values()), rng=rng, draws=draws)
    each = doubt_of_each(law, level)
    found: dict[str, list[Comparison]] = {}
    for name, one in family.items():
        found[name] = []
        for column, (first, second) in enumerate(one.pairs):
            alone = _p_value(one, column)
            difference = one.estimate(column, 1 - each)
            p_value = 1.0 if alone >= 1 else (1 + int(np.searchsorted(law, alone, side="right"))) / (1 + draws)
            found[name].append(Comparison(first, second, difference, p_value, detectable(difference, level=1 - each)))
    return found


def _numbered(one: Compared) -> Compared:
    """With numbers for labels, which compare faster than texts."""
    return one._replace(labels=np.unique(one.labels, return_inverse=True)[1])


def doubt_of_each(law: Float[np.ndarray, " draws"], level: float = 0.95) -> float:
    """One less the level of each interval, at which all of them hold at once."""
    found = float(law[max(math.floor((1 - level) * (len(law) + 1)) - 1, 0)])
    # Of a few prompts some signs make all differences the same, which t takes as sure; where nothing differs at all, no
    # sign says anything, and each interval is one by itself.
    return min(max(found, math.exp(SURE)), 1 - level)


def joint_law(
    family: Sequence[Compared], *, rng: np.random.Generator, draws: int = DRAWS
) -> Float[np.ndarray, " draws"]:
    """The least p-value of all differences that vary, in each draw of signs, from the least to the largest."""
    parts = []
    for one in family:
        sums = np.stack([cluster_sums(column, one.labels)[0] for column in one.differences.T], axis=1)
        sizes = cluster_sums(one.differences[:, 0], one.labels)[1]
        off = sums - sizes[:, None] * (sums.sum(axis=0) / sizes.sum())
        varies = (off**2).sum(axis=0) > 1e-24 * (1 + np.abs(sums).max()) ** 2 * len(off)
        if varies.any():
            parts.append(off[:, varies])
    if not parts:
        return np.ones(draws)
    seed = int(rng.integers(2**63))
    return np.sort(np.minimum.reduce([_p_values_of_draws(off, np.random.default_rng(seed), draws) for off in parts]))


def _p_values_of_draws(
    off: Float[np.ndarray, "prompts pairs"], rng: np.random.Generator, draws: int
) -> Float[np.ndarray, " draws"]:
    n, total = len(off), (off**2).sum(axis=0)
    rows = max(1, DRAWS_AT_ONCE // n)
    largest = []
    for start in range(0, draws, rows):
        signs = 2.0 * rng.integers(2, size=(min(rows, draws - start), n), dtype=np.int8) - 1.0
        means = signs @ off / n
        spread = np.sqrt(np.maximum(total - n * means**2, 1e-300) / (n - 1))
        largest.append((np.abs(means) * math.sqrt(n) / spread).max(axis=1))
    return 2 * stats.t.sf(np.concatenate(largest), n - 1)


def _p_value(one: Compared, column: int) -> float:
    """The least level of doubt at which a difference's own interval leaves out 0, by bisection; 1 if none does."""

    def leaves_out_zero(alpha: float) -> bool:
        found = one.estimate(column, 1 - alpha)
        return not found.low <= 0 <= found.high

    if not leaves_out_zero(1 - 1e-9):
        return 1.0
    low, high = SURE, 0.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if leaves_out_zero(math.exp(middle)) else (middle, high)
    return math.exp(high)
