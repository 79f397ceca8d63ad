"""Tells how large a difference would have been seen, and how many prompts a wanted one needs."""

import math
from collections.abc import Callable

from scipy import stats

from .intervals import Estimate, t_quantile
from .shares import root

POWER = 0.8
FEWEST, MOST = 3, 10_000_000


def standard_shift(n: int, *, level: float = 0.95, power: float = POWER) -> float:
    """The true mean, in standard errors of n items, that a t interval tells apart from 0 with a chance of `power`.

    Near 2.80 for many items at 95%; 3 items need 5.65.

    Raises:
        ValueError: If there are fewer than two items.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    t = t_quantile(level, n)
    if n > 2_000 or t > 30:  # the noncentral t is the normal, or cannot be computed
        return t + float(stats.t.ppf(power, n - 1))
    return root(lambda shift: float(stats.nct.sf(t, n - 1, shift)) - power, 0.0, 4 * t + 10)


def detectable(difference: Estimate, *, level: float = 0.95, power: float = POWER) -> float:
    """The least true difference that this many items with this much noise would show, from the width of the interval.

    For skewed values it is about that. Infinite where there is no interval.

    Args:
        difference: With its interval.
        level: Of that interval.
        power: Chance that the difference is seen.
    """
    half = (difference.high - difference.low) / 2
    if not math.isfinite(half) or difference.n < 2:
        return math.inf
    return half / t_quantile(level, difference.n) * standard_shift(difference.n, level=level, power=power)


def prompts_needed(detectable_now: float, n: int, wanted: float, *, level: float = 0.95, power: float = POWER) -> int:
    """How many prompts show a difference `wanted`, if n show `detectable_now`.

    Raises:
        ValueError: If `wanted` or `detectable_now` is not positive and finite, or it takes more than ten million prompts.
    """
    if not (0 < wanted < math.inf and 0 < detectable_now < math.inf):
        raise ValueError(
            f"differences must be positive and finite, got {wanted} wanted and {detectable_now} detectable"
        )
    deviation = detectable_now * math.sqrt(n) / standard_shift(n, level=level, power=power)

    def shown(prompts: int) -> float:
        return deviation * standard_shift(prompts, level=level, power=power) / math.sqrt(prompts)

    return fewest_prompts(shown, wanted)


def fewest_prompts(shown: Callable[[int], float], wanted: float) -> int:
    """The least number of prompts, three or more, at which what they show is at most `wanted`.

    Args:
        shown: The least difference that so many prompts show; it falls with their number.
        wanted: A difference.

    Raises:
        ValueError: If it takes more than ten million prompts.
    """
    low, high = FEWEST - 1, FEWEST
    while shown(high) > wanted:
        low, high = high, 2 * high
        if high > MOST:
            raise ValueError(f"a difference of {wanted:g} needs more than {MOST:,} prompts")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) <= wanted else (middle, high)
    return high


def detectable_share(discordant: float, n: int, *, level: float = 0.95, power: float = POWER) -> float:
    """The least difference of paired shares that n prompts show, of which a share `discordant` is won or lost.

    Infinite if even the greatest possible one, `discordant` itself, is not seen. A win rate with ties has half of it.

    Source: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".
    """
    a, b = float(stats.norm.ppf((1 + level) / 2)), float(stats.norm.ppf(power))

    def over(d: float) -> float:
        return d * math.sqrt(n) - a * math.sqrt(discordant) - b * math.sqrt(max(discordant - d * d, 0.0))

    return root(over, 0.0, discordant) if over(discordant) > 0 else math.inf


def equivalent(difference: Estimate, margin: float, *, level: float = 0.95) -> bool:
    """Whether a difference is within ±margin beyond doubt: two one-sided tests, each at 1 - level.

    The interval at 2 level - 1 is taken from that at `level`, each end drawn in by the ratio of the quantiles of t.

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach".
    """
    inwards = t_quantile(2 * level - 1, difference.n) / t_quantile(level, difference.n)
    low = difference.value + (difference.low - difference.value) * inwards
    high = difference.value + (difference.high - difference.value) * inwards
    return -margin < low and high < margin
