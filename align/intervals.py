"""Computes the confidence intervals that both the audit of data and the evaluation show."""

import math
from statistics import NormalDist


def wilson(successes: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Both ends of the score interval of a share, which has a width where every item says the same.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        successes: Of independent items; a tie counts one half.
        n: Items, at least 1.
        level: Coverage, in (0, 1).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, inflation = successes / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / inflation
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / inflation
    return max(0.0, centre - half), min(1.0, centre + half)
