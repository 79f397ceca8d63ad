"""Computes win rates from judgements in both orders: ties count one half, effects of the order are reported.

A judgement in one order is `orders[prompt, i, j]`: the probability that answer i beats answer j, given by a judge who
was shown i first. NaN on the diagonal, and where the judge failed; failures are counted, never dropped silently.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from align.judges.protocol import Orders

from .intervals import Estimate, check_items, cluster_sums, win_scores
from .shares import share_estimate

Wins = Float[np.ndarray, " prompts"]


class WinRate(NamedTuple):
    """How often one model's answers beat another's. Rates are shares, not percent."""

    win_rate: Estimate
    """Mean probability of a win; its `n` is the number of independent prompts."""
    standard_error: float
    discrete_win_rate: Estimate
    """Wins plus half of the ties, over games."""
    wins: int
    ties: int
    losses: int
    failed: int
    """Games without a verdict, in no other number."""


class PositionBias(NamedTuple):
    """What a judge makes of the order. Without bias: no flips, and one half."""

    flips: Estimate
    """Share of pairs whose verdict (win, tie, loss) differs between the two orders."""
    first_preference: Estimate
    """Mean probability that the answer shown first wins."""


def win_rate(
    wins: Wins,
    *,
    clusters: Shaped[np.ndarray, " prompts"] | None = None,
    level: float = 0.95,
) -> WinRate:
    """Win rate, its standard error, and the win rate of rounded verdicts.

    The intervals are those of `share_estimate`.

    Source: Li et al. 2023, AlpacaEval (github.com/tatsu-lab/alpaca_eval), whose leaderboard gives 100 times these.

    Args:
        wins: Per game the probability that the model wins, both orders averaged; one half is a tie, NaN a failure.
        clusters: Label of each game's prompt, where prompts have several games. Shape (prompts,).
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there are fewer than two prompts with a verdict, or a verdict is outside [0, 1].
    """
    judged = ~np.isnan(wins)
    wins, clusters = wins[judged], None if clusters is None else clusters[judged]
    if ((wins < 0) | (wins > 1)).any():
        raise ValueError(f"wins must be probabilities in [0, 1], got {wins.min()} to {wins.max()}")
    discrete = win_scores(wins, np.full_like(wins, 0.5))
    sums, sizes = cluster_sums(wins, clusters)
    check_items(wins, len(sums), level)
    off = sums - sizes * wins.mean()
    error = float(np.sqrt((off**2).sum() * len(sums) / (len(sums) - 1))) / len(wins)
    counts = [int((discrete == outcome).sum()) for outcome in (1.0, 0.5, 0.0)]
    rates = [share_estimate(values, clusters, level=level) for values in (wins, discrete)]
    return WinRate(rates[0], error, rates[1], *counts, failed=int((~judged).sum()))


def position_bias(orders: Orders, *, level: float = 0.95) -> PositionBias:
    """How much the order of the two answers decides, over all pairs judged in both orders; prompts are clusters.

    Source: Wang et al. 2023, "Large language models are not fair evaluators" (arXiv:2305.17926), sections 2 and 3.1.

    Raises:
        ValueError: If fewer than two prompts have a pair that was judged in both orders.
    """
    prompts, i, j = _judged_pairs(orders)
    shown_first, shown_second = orders[prompts, i, j], 1 - orders[prompts, j, i]
    flips = (np.sign(shown_first - 0.5) != np.sign(shown_second - 0.5)).astype(float)
    first_wins = (shown_first + 1 - shown_second) / 2
    check_items(flips, len(np.unique(prompts)), level)
    return PositionBias(*(share_estimate(values, prompts, level=level) for values in (flips, first_wins)))


def _judged_pairs(orders: Orders) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prompt, i and j > i of every pair with a judgement in both orders."""
    upper = np.triu(np.ones(orders.shape[1:], dtype=bool), k=1)
    found = np.nonzero(~np.isnan(orders) & ~np.isnan(orders.transpose(0, 2, 1)) & upper)
    return found[0], found[1], found[2]


def mean_preferences(preferences: Orders) -> Float[np.ndarray, "models models"]:
    """Win rate of each model against each other one, over the prompts that have a verdict for the two.

    Raises:
        ValueError: If two models have no verdict.
    """
    judged = (~np.isnan(preferences)).sum(axis=0)
    if (judged == 0).any():
        i, j = np.argwhere(judged == 0)[0].tolist()
        raise ValueError(f"preferences: no verdict between models {i} and {j}")
    return np.nansum(preferences, axis=0) / judged


def longer_wins(
    wins: Wins,
    lengths: Float[np.ndarray, " prompts"],
    ref_lengths: Float[np.ndarray, " prompts"],
    *,
    clusters: Shaped[np.ndarray, " prompts"] | None = None,
) -> dict[str, Estimate]:
    """The baseline "the longer answer wins", over the games that have a verdict.

    Returns:
        `longer_wins/win_rate`, what the model would reach before a judge who looks at length alone (ties one half), and
        `longer_wins/agreement`, how often the actual verdict went to the longer answer (one half if it is a tie or the
        lengths are equal).
    """
    judged = ~np.isnan(wins)
    longer = win_scores(lengths, ref_lengths)[judged]
    verdict = win_scores(wins[judged], np.full(len(longer), 0.5))
    agreement = 0.5 + 2 * (longer - 0.5) * (verdict - 0.5)
    labels = None if clusters is None else clusters[judged]
    return {
        f"longer_wins/{name}": share_estimate(values, labels)
        for name, values in (("win_rate", longer), ("agreement", agreement))
    }
