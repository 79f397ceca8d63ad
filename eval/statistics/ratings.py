"""Rates many models on one scale (Bradley-Terry), and finds what no scale shows: cyclic preferences."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from .intervals import Estimate, check_items, t_quantile
from .shares import design_effect, root

PreferenceMatrix = Float[np.ndarray, "models models"]
STEPS = 200
FARTHEST = 16.0  # nats: beyond, the games do not bound a strength
HARDLY_A_GAME = 1e-6  # drawn games a pair, which keep a likelihood without a maximum from running away
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

    Intervals are of the profile likelihood of the games alone, over their design effect: they hold too if the games of a
    prompt depend on each other, if verdicts are probabilities, and if preferences are not transitive (r is then the best
    transitive summary; see `cycles`). An end is infinite where the games do not bound it, and the value then is the
    prior's. An estimate's `n` counts the prompts on which the model played.

    Regularisation: none by default. `prior` adds that many drawn games to each pair of models that has played, which
    keeps strengths finite where a model never loses, and pulls all of them together. It has no part in the intervals.

    Source: Bradley and Terry 1952; existence, Ford 1957, "Solution of a ranking problem from binary comparisons".

    Args:
        games: Results.
        models: Number of models.
        prior: Drawn games added per pair that has played.
        level: Coverage of each interval, in (0, 1).

    Raises:
        ValueError: If two groups of models never played each other, if without `prior` some models never lost to the
            others, a game is of a model against itself or not in [0, 1], or there are fewer than two prompts.
    """
    check_items(games.wins, len(np.unique(games.clusters)), level)
    strengths = strengths_of(games, models, prior=prior)
    played, won = _tables(games, models)
    drawn = prior * (played > 0)
    inverse = np.linalg.pinv(_curvature(played + drawn, strengths), hermitian=True)
    labels, cluster = np.unique(games.clusters, return_inverse=True)
    bounded = bool(_reachable(won > 0).all())
    found = []
    for model in range(models):
        contrast = np.eye(models)[model] - 1 / models
        effect = _design_effect(games, cluster, strengths, inverse @ contrast, bounded=bounded)
        reach = effect * t_quantile(level, len(labels)) ** 2 / 2
        ends = _profile_ends(played, won, contrast, float(strengths[model]), reach)
        n = len(np.unique(cluster[(games.first == model) | (games.second == model)]))
        found.append(Estimate(float(strengths[model]), *ends, n))
    return found


def strengths_of(games: Games, models: int, *, prior: float = 0.0) -> Float[np.ndarray, " models"]:
    """The values of `bradley_terry` without their intervals; arguments and errors are the same."""
    _check_games(games, models, prior)
    played, won = _tables(games, models)
    _check_connected(played, won, prior)
    drawn = prior * (played > 0)
    return _newton(played + drawn, won + drawn / 2)


def _design_effect(
    games: Games, cluster: np.ndarray, strengths: np.ndarray, pull: np.ndarray, *, bounded: bool
) -> float:
    """Of the prompts on a contrast of strengths; the worst where somebody never lost, since then no game tells."""
    expected = _sigmoid(strengths[games.first] - strengths[games.second])
    lever = pull[games.first] - pull[games.second]
    alone = np.abs(lever) * np.sqrt(expected * (1 - expected))
    independent = float((alone**2).sum())
    worst = float((np.bincount(cluster, weights=alone) ** 2).sum()) / independent
    influence = np.bincount(cluster, weights=(games.wins - expected) * lever)
    return design_effect(influence, worst, independent) if bounded else worst


def _profile_ends(
    played: PreferenceMatrix, won: PreferenceMatrix, contrast: np.ndarray, value: float, reach: float
) -> tuple[float, float]:
    """Where the log-likelihood of the games, at its best for each value of a contrast, has fallen by `reach`."""
    trace = HARDLY_A_GAME * (played > 0)
    most = _newton(played + trace, won + trace / 2)

    def lost(strengths: np.ndarray) -> float:
        return float((won * np.logaddexp(0.0, strengths[None, :] - strengths[:, None])).sum())

    least = lost(most)

    def excess(at: float) -> float:
        near = most + (at - float(contrast @ most)) / float(contrast @ contrast) * contrast
        return lost(_newton(played + trace, won + trace / 2, contrast, at, start=near)) - least - reach

    inner = value if excess(value) < 0 else float(contrast @ most)

    def end(sign: int) -> float:
        step = 0.5
        while excess(inner + sign * step) < 0:
            step *= 2
            if step > FARTHEST:
                return sign * math.inf
        return root(excess, *sorted((inner, inner + sign * step)), xtol=1e-5)

    return end(-1), end(1)


def elo(strength: Estimate, *, mean: float = 1000.0) -> Estimate:
    """A strength in nats on the Elo scale: 400 points are odds of ten to one; `mean` is the average model's."""
    value, low, high = (mean + ELO_PER_NAT * number for number in strength[:3])
    return Estimate(value, low, high, strength.n)


def _check_games(games: Games, models: int, prior: float) -> None:
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


def _newton(
    played: PreferenceMatrix,
    won: PreferenceMatrix,
    contrast: np.ndarray | None = None,
    at: float = 0.0,
    *,
    start: np.ndarray | None = None,
) -> Float[np.ndarray, " models"]:
    """The likeliest strengths, mean 0; with `contrast @ strengths = at` if there is one."""
    k = len(played)
    border = np.ones((1, k)) if contrast is None else np.stack([np.ones(k), contrast])
    target = np.array([0.0, at])[: len(border)]
    strengths = np.linalg.pinv(border) @ target if start is None else start
    for _ in range(STEPS):
        expected = played * _sigmoid(strengths[:, None] - strengths[None, :])
        gradient = (won - expected).sum(axis=1)
        curvature = _curvature(played, strengths) + HARDLY_A_GAME**2 * np.eye(k)
        system = np.block([[curvature, border.T], [border, np.zeros((len(border), len(border)))]])
        step = np.linalg.solve(system, np.concatenate([gradient, target - border @ strengths]))[:k]
        strengths = strengths + step * min(1.0, 1.0 / float(np.abs(step).max() or 1.0))
        if np.abs(step).max() < 1e-9:
            return strengths
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
