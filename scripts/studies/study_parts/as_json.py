"""Estimates of studies as their results hold them."""

from typing import Any

import numpy as np
from jaxtyping import Float

from eval.statistics.intervals import Estimate, mean_estimate, over_seeds


def shown(estimate: Estimate, digits: int | None = 4) -> dict[str, float | int | None]:
    """As JSON has it, to so many digits or, with None, whole; an end that is not known is null."""

    def told(value: float) -> float:
        return float(value) if digits is None else round(float(value), digits)

    ends = [told(end) if np.isfinite(end) else None for end in (estimate.low, estimate.high)]
    return {"value": told(estimate.value), "low": ends[0], "high": ends[1], "n": estimate.n}


def over(rows: Float[np.ndarray, "seeds prompts"], bounds: tuple[float, float]) -> dict[str, Any]:
    """Each seed's mean, and their mean over prompts, with seeds fixed, and over seeds."""
    each = rows.mean(axis=1)
    return {
        "each": [round(float(value), 4) for value in each],
        "over prompts": shown(mean_estimate(rows.mean(axis=0), bounds=bounds)),
        "over seeds": shown(over_seeds(each)) if len(each) > 1 else None,
    }


def gaps(
    mine: Float[np.ndarray, "seeds prompts"], theirs: Float[np.ndarray, "others prompts"]
) -> Float[np.ndarray, "both prompts"]:
    """One's values less another's, on the seeds that both have."""
    both = min(len(mine), len(theirs))
    return mine[:both] - theirs[:both]


def over_less(
    mine: Float[np.ndarray, "seeds prompts"], theirs: Float[np.ndarray, "others prompts"], bounds: tuple[float, float]
) -> dict[str, Any]:
    """`over` of one's values less another's, on the seeds that both have; `bounds` are those of the difference."""
    return over(gaps(mine, theirs), bounds)
