"""Rates many models on one scale (Bradley-Terry), and finds what no scale shows: cyclic preferences."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from .intervals import Estimate, check_items

PreferenceMatrix = Float[np.ndarray, "models models"]
STEPS = 200
ELO_PER_NAT = 400 / math.log(10)


class Games(NamedTuple):
    """Games between models; each of shape (games,)."""

    first: Int[np.ndarray, " games"]
    second: Int[np.ndarray, " games"]
    wins: Float[np.ndarray, " games"]
    """Probability that the first model wins; one half is a tie."""
    clusters: Shaped[np.ndarray, " games"]
    """Label of the prompt, within which games are not independent."""


def games_of(preferences: Float[np.ndarray, "prompts models models"]) -> Games:
    """Every pair of models on every prompt that has a verdict (NaN: none), once."""
    upper = np.triu(np.ones(preferences.shape[1:], dtype=bool), k=1)
    prompts, first, second = np.nonzero(~np.isnan(preferences) & upper)
    return Games(first, second, preferences[prompts, first, second], prompts)


def bradley_terry(games: Games, models: int, *, prior: float = 0.0, level: float = 0.95) -> list[Estimate]:
    """Strengths r in nats with P(i beats j) = σ(r_i - r_j), mean 0, by maximum likelihood.

    Intervals are from the sandwich covariance with prompts as clusters: they hold too if the games of a prompt depend
    on each other, if verdicts are probabilities, and if preferences are not transitive (r is then the best
    transitive summary; see `exploitability`). An estimate's `n` counts the prompts on which the model played.

    Regularisation: none by default. `prior` adds that many drawn games to each pair of models that has played, which
    keeps strengths finite where a model never loses, and pulls all of them together.

    Source: Bradley and Terry 1952; existence, Ford 1957, "Solution of a ranking problem from binary comparisons";
    sandwich, Liang and Zeger 1986.

    Args:
        games: Results.
        models: Number of models.
        prior: Drawn games added per pair that has played.
        level: Coverage of each interval, in (0, 1).

    Raises:
        ValueError: If two groups of models never played each other, if without `prior` some models never lost to the
            others, a game is of a model against itself or not in [0, 1], or there are fewer than two prompts.
    """
    _check_games(games, models, prior, level)
    played, won = _tables(games, models)
    _check_connected(played, won, prior)
    drawn = prior * (played > 0)
    strengths = _newton(played + drawn, won + drawn / 2)
    fitted = _sigmoid(strengths[games.first] - strengths[games.second])
    labels, cluster = np.unique(games.clusters, return_inverse=True)
    residual = games.wins - fitted
    size = len(labels) * models
    scores = np.bincount(cluster * models + games.first, weights=residual, minlength=size)
    scores -= np.bincount(cluster * models + games.second, weights=residual, minlength=size)
    pull = scores.reshape(len(labels), models) @ np.linalg.pinv(_curvature(played + drawn, strengths), hermitian=True)
    errors = np.sqrt((pull**2).sum(axis=0) * len(labels) / (len(labels) - 1))
    half = NormalDist().inv_cdf((1 + level) / 2) * errors
    counts = [len(np.unique(cluster[(games.first == m) | (games.second == m)])) for m in range(models)]
    return [Estimate(float(r), float(r - h), float(r + h), n) for r, h, n in zip(strengths, half, counts, strict=True)]


def elo(strength: Estimate, *, mean: float = 1000.0) -> Estimate:
    """A strength in nats on the Elo scale: 400 points are odds of ten to one; `mean` is the average model's."""
    value, low, high = (mean + ELO_PER_NAT * number for number in strength[:3])
    return Estimate(value, low, high, strength.n)


def _check_games(games: Games, models: int, prior: float, level: float) -> None:
    check_items(games.wins, len(np.unique(games.clusters)), level)
    seats = np.concatenate([games.first, games.second])
    if seats.min() < 0 or seats.max() >= models or (games.first == games.second).any():
        raise ValueError(f"games: first and second must be two different models from 0 to {models - 1}")
    if games.wins.min() < 0 or games.wins.max() > 1:
        raise ValueError(f"games: wins must be in [0, 1], got {games.wins.min()} to {games.wins.max()}")
    if not 0 <= prior < math.inf:
        raise ValueError(f"prior: must not be negative, got {prior}")


def _tables(games: Games, models: int) -> tuple[PreferenceMatrix, PreferenceMatrix]:
    """Games played by each pair (symmetric), and games won by the row against the column."""
    one, other = games.first * models + games.second, games.second * models + games.first
    size = models * models
    won = np.bincount(one, weights=games.wins, minlength=size) + np.bincount(
        other, weights=1 - games.wins, minlength=size
    )
    played = np.bincount(one, minlength=size) + np.bincount(other, minlength=size)
    return played.reshape(models, models).astype(float), won.reshape(models, models)


def _check_connected(played: PreferenceMatrix, won: PreferenceMatrix, prior: float) -> None:
    together = _reachable(played > 0)
    if not together.all():
        group = np.flatnonzero(together[0]).tolist()
        raise ValueError(
            f"games: models {group} never played the others, not even through third ones, so they share no scale; "
            "add games between the groups, or rate them separately"
        )
    beaten = _reachable(won > 0)
    if prior == 0 and not beaten.all():
        unbeaten = int(np.argmin(beaten.sum(axis=0)))
        group = np.flatnonzero(beaten[:, unbeaten]).tolist()
        raise ValueError(
            f"games: models {group} never lost to any other, so their strength has no upper bound; add games, or "
            "set prior (drawn games per pair), and say so where the ratings are shown"
        )


def _reachable(edges: Shaped[np.ndarray, "models models"]) -> Shaped[np.ndarray, "models models"]:
    reach = edges | np.eye(len(edges), dtype=bool)
    for middle in range(len(edges)):
        reach |= np.outer(reach[:, middle], reach[middle])
    return reach


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


def _curvature(played: PreferenceMatrix, strengths: Float[np.ndarray, " models"]) -> PreferenceMatrix:
    """Minus the second derivative of the log-likelihood: a Laplacian, whose null space is adding a constant."""
    expected = _sigmoid(strengths[:, None] - strengths[None, :])
    weights = played * expected * (1 - expected)
    return np.diag(weights.sum(axis=1)) - weights


def _newton(played: PreferenceMatrix, won: PreferenceMatrix) -> Float[np.ndarray, " models"]:
    strengths = np.zeros(len(played))
    for _ in range(STEPS):
        expected = played * _sigmoid(strengths[:, None] - strengths[None, :])
        gradient = (won - expected).sum(axis=1)
        step = np.linalg.lstsq(_curvature(played, strengths), gradient, rcond=None)[0]
        strengths = strengths + step * min(1.0, 1.0 / float(np.abs(step).max() or 1.0))
        if np.abs(step).max() < 1e-10:
            return strengths - strengths.mean()
    raise ValueError(f"games: strengths have not converged in {STEPS} steps; set prior to keep them bounded")


def exploitability(preferences: PreferenceMatrix, mixture: Float[np.ndarray, " models"]) -> float:
    """How far the best opponent's win rate against a mixture is above one half: max_i (P π)_i - 1/2, at least 0.

    0 means that no model beats the mixture: it is a Nash equilibrium. A cycle leaves every single model exploitable.

    Args:
        preferences: P, probability that the model of the row beats that of the column; P + P^T = 1.
        mixture: π, probabilities. A single model is a one-hot vector.

    Raises:
        ValueError: If P + P^T is not 1, or the mixture is no probability vector.
    """
    _check_preferences(preferences)
    if mixture.min() < 0 or abs(mixture.sum() - 1) > 1e-9:
        raise ValueError(f"mixture: must be probabilities that sum to 1, got {mixture.tolist()}")
    return float((preferences @ mixture).max()) - 0.5


def nash_mixture(preferences: PreferenceMatrix) -> Float[np.ndarray, " models"]:
    """A mixture of models that no model beats. Where there are several, one of them.

    The linear programme max Σ w with P w ≤ 1, w ≥ 0 by the simplex method with Bland's rule, which cannot cycle; the
    mixture is w / Σ w. For tens of models, not thousands.

    Source: Gale, Kuhn and Tucker 1951 (games as linear programmes); Bland 1977.

    Raises:
        ValueError: If P + P^T is not 1.
    """
    _check_preferences(preferences)
    k = len(preferences)
    table = np.hstack([preferences, np.eye(k), np.ones((k, 1))])
    gains = np.concatenate([np.ones(k), np.zeros(k + 1)])
    basis = np.arange(k, 2 * k)
    while (enter := np.flatnonzero(gains[:-1] > 1e-11)).size:
        column = table[:, enter[0]]
        ratios = np.full(k, np.inf)
        np.divide(table[:, -1], column, out=ratios, where=column > 1e-11)
        leave = min(np.flatnonzero(ratios <= ratios.min() + 1e-12), key=lambda row: basis[row])
        table[leave] /= column[leave]
        others = np.arange(k) != leave
        table[others] -= np.outer(table[others, enter[0]], table[leave])
        gains = gains - gains[enter[0]] * table[leave]
        basis[leave] = enter[0]
    weights = np.zeros(2 * k)
    weights[basis] = np.maximum(table[:, -1], 0.0)
    return weights[:k] / weights[:k].sum()


def _check_preferences(preferences: PreferenceMatrix) -> None:
    if not np.allclose(preferences + preferences.T, 1.0, rtol=0, atol=1e-9) or preferences.min() < 0:
        raise ValueError("preferences: probabilities with P + P^T = 1 everywhere, so one half on the diagonal")
