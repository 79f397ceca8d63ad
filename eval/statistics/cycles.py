"""Tests whether preferences fit one scale, and whether some beat each other in a circle: luck alone shows circles often.

Of six equal models, the mean preferences are cyclic in 60 to 78% of data sets; so nothing is said of a circle without a
test that holds for every truth without one.
"""

from itertools import permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .intervals import check_items
from .ratings import games_of, strengths_of
from .shares import share_difference

Preferences = Float[np.ndarray, "games models models"]


class Cycles(NamedTuple):
    """What two tests say of all models' preferences."""

    one_scale_p: float
    """Of "one Bradley-Terry strength for each model explains all win rates": small says that it does not."""
    circles: list[tuple[int, int, int]]
    """Models i, j and k of which i beats j, j beats k and k beats i, each beyond doubt."""


def find_cycles(
    preferences: Preferences,
    clusters: Shaped[np.ndarray, " games"],
    *,
    rng: np.random.Generator,
    alpha: float = 0.05,
    draws: int = 999,
) -> Cycles:
    """Score test of one scale, and circles of three whose every edge is won at `alpha` over the number of pairs.

    In any order that a transitive truth allows some edge of each circle points backwards, and there are no more such
    edges than pairs: so the chance of naming any circle is at most `alpha`, whatever that truth is. Preferences that do
    not fit one scale need not be cyclic.

    The law of the score test is that of random signs of the prompts. Both tests, and the bound, are ours; how often they
    are right and wrong is in `scripts/bench/results/coverage.json`.

    Args:
        preferences: By game, of the model of the row over that of the column; those with a NaN do not count.
        clusters: The prompt of each game.
        rng: Source of randomness of the signs.
        alpha: Chance of a false alarm of each test.
        draws: Random choices of signs.

    Raises:
        ValueError: If fewer than two prompts have games with a verdict on every pair.
    """
    k = preferences.shape[1]
    off_diagonal = ~np.eye(k, dtype=bool)
    whole = ~np.isnan(preferences[:, off_diagonal]).any(axis=1)
    labels, index = np.unique(clusters[whole], return_inverse=True)
    check_items(np.zeros(0), len(labels), 1 - alpha)
    first, second = np.triu_indices(k, 1)
    games = np.bincount(index).astype(float)
    sums = [np.bincount(index, weights=preferences[whole, i, j]) for i, j in zip(first, second, strict=True)]
    won = np.stack(sums, axis=1) / games[:, None]
    p_value = _one_scale(won, first, second, k, rng, draws)
    beats = np.zeros((k, k), dtype=bool)
    for column, (i, j) in enumerate(zip(first, second, strict=True)):
        edge = share_difference(2 * won[:, column] - 1, level=1 - 2 * alpha / len(first))
        beats[i, j], beats[j, i] = edge.low > 0, edge.high < 0
    circles = [
        (i, j, m)
        for i, j, m in permutations(range(k), 3)
        if i == min(i, j, m) and beats[i, j] and beats[j, m] and beats[m, i]
    ]
    return Cycles(p_value, circles)


def _one_scale(
    won: Float[np.ndarray, "prompts pairs"],
    first: np.ndarray,
    second: np.ndarray,
    k: int,
    rng: np.random.Generator,
    draws: int,
) -> float:
    """P-value of the part of each prompt's residuals that no strengths can take up, in units of its deviation."""
    table = np.full((len(won), k, k), np.nan)
    table[:, first, second] = won
    strengths = strengths_of(games_of(table), k, prior=1.0)
    fitted = 1 / (1 + np.exp(strengths[second] - strengths[first]))
    variance = fitted * (1 - fitted)
    sides = np.eye(k)[first] - np.eye(k)[second]
    taken_up = variance[:, None] * sides @ np.linalg.pinv((sides.T * variance) @ sides, hermitian=True) @ sides.T
    residual = won - fitted
    left = (residual - residual @ taken_up.T) / np.sqrt(variance)
    observed = float((left.mean(axis=0) ** 2).sum())
    signs = 2.0 * rng.integers(2, size=(draws, len(won)), dtype=np.int8) - 1.0
    null = ((signs @ left / len(won)) ** 2).sum(axis=1)
    return (1 + int((null >= observed - 1e-12).sum())) / (1 + draws)
