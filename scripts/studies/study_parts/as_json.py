"""Estimates of studies as their results hold them."""

import numpy as np

from eval.statistics.intervals import Estimate


def shown(estimate: Estimate, digits: int | None = 4) -> dict[str, float | int | None]:
    """As JSON has it, to so many digits or, with None, whole; an end that is not known is null."""

    def told(value: float) -> float:
        return float(value) if digits is None else round(float(value), digits)

    ends = [told(end) if np.isfinite(end) else None for end in (estimate.low, estimate.high)]
    return {"value": told(estimate.value), "low": ends[0], "high": ends[1], "n": estimate.n}
