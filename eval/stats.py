"""Point estimates with confidence intervals. Every number in a report is an `Estimate`."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000
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
    if len(values) < 2:
        raise ValueError(f"a confidence interval needs at least 2 items, got {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite, got {int((~np.isfinite(values)).sum())} that are not")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
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
