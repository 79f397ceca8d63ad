"""Estimates the win rate of a model if its answers were as long as its opponent's, by a logistic model."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .intervals import Estimate, check_items, cluster_sums, t_quantile
from .shares import design_effect

Values = Float[np.ndarray, " prompts"]
RIDGE = 1e-3
STEPS = 100
EXTREME_LOGIT = 6.0
MOST_LEVERAGE = 0.9


class LengthControl(NamedTuple):
    """The length-controlled win rate (a share) and the fitted log-odds."""

    win_rate: Estimate
    model: float
    """Log-odds of a win at equal length."""
    length: float
    """Log-odds that a longer answer adds, at most; what the judge likes about length itself."""
    difficulty: float
    """Log-odds per unit of `difficulty`; 0 without it."""


def length_controlled_win_rate(
    wins: Values,
    lengths: Values,
    ref_lengths: Values,
    *,
    difficulty: Values | None = None,
    clusters: Shaped[np.ndarray, " prompts"] | None = None,
    level: float = 0.95,
) -> LengthControl:
    """Mean over prompts of σ(θ + ψ γ), after fitting P(win) = σ(θ + φ tanh(d / std(d)) + ψ γ).

    θ is the model, d its answer's length less its opponent's, γ the difficulty of the instruction. Verdicts may be
    probabilities. The interval is of the fit and of the prompts, on the log-odds scale, robust to clusters and to a
    wrong model; residuals count the more, the more their own game decides their fit (MacKinnon and White 1985, HC2).

    Source: Dubois et al. 2024, "Length-controlled AlpacaEval" (arXiv:2404.04475), section 3.

    Deviations: AlpacaEval takes γ from a joint fit over its leaderboard (its table is not part of this project; see
    `instruction_difficulty`), adds verdicts of answers lengthened on purpose with weight 0.2, and chooses the strength
    of an L1 penalty by cross-validation. Here a ridge of 0.001 does no more than keep the fit finite.

    Args:
        wins: Per game the probability that the model wins, both orders averaged. Shape (prompts,).
        lengths: Of the model's answers; characters in AlpacaEval. Shape (prompts,).
        ref_lengths: Of the opponent's. Shape (prompts,).
        difficulty: γ, with mean 0, or None to leave the term out. Shape (prompts,).
        clusters: Label of each game's prompt, where prompts have several games. Shape (prompts,).
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If a value is not finite, a verdict is outside [0, 1] or all of them are the same, there are fewer
            than two prompts, all answers differ in length by the same number (but zero), or the fit is perfect.
    """
    gamma = np.zeros_like(wins) if difficulty is None else difficulty
    values = np.concatenate([wins, lengths, ref_lengths, gamma])
    check_items(values, len(cluster_sums(wins, clusters)[0]), level)
    if wins.min() < 0 or wins.max() > 1 or np.ptp(wins) == 0:
        raise ValueError(f"wins must be probabilities that are not all the same, got {wins.min()} to {wins.max()}")
    features = np.stack([np.ones_like(wins), _length_feature(lengths - ref_lengths), gamma], axis=1)
    sizes = cluster_sums(wins, clusters)[1]
    freedom = len(sizes) - (2 if difficulty is None else 3)
    if freedom < 1:
        raise ValueError(f"a fit of length and difficulty needs more than {len(sizes)} prompts")
    weights = _fit(features, wins)
    fitted = _sigmoid(features @ weights)
    if np.abs(wins - fitted).max() < 0.01 < wins.std():
        raise ValueError("wins: length and difficulty alone decide every game, so that no effect can be told apart")
    equal = features * [1.0, 0.0, 1.0]
    each = _sigmoid(equal @ weights)
    value = float(each.mean())
    slope = equal.T @ (each * (1 - each)) / len(wins)
    pull = np.linalg.solve(_curvature(features, fitted), slope)
    doubt, lever = fitted * (1 - fitted), features @ pull
    inverse = np.linalg.inv(_curvature(features, fitted))
    leverage = np.minimum(np.einsum("ij,jk,ik->i", features, inverse, features) * doubt, MOST_LEVERAGE)
    influence = (each - value) / len(wins) + (wins - fitted) / np.sqrt(1 - leverage) * lever
    alone = np.abs(lever) * np.sqrt(doubt)
    independent = float((alone**2).sum())
    worst = float((cluster_sums(alone, clusters)[0] ** 2).sum()) / independent
    effect = design_effect(cluster_sums(influence, clusters)[0], worst, independent)
    error = np.sqrt(effect * independent) / (value * (1 - value))
    half = t_quantile(level, freedom + 1) * error
    odds = np.log(value) - np.log1p(-value)
    low, high = (float(_sigmoid(np.array([odds + sign * half]))[0]) for sign in (-1, 1))
    return LengthControl(Estimate(value, low, high, len(sizes)), *(float(w) for w in weights))


def instruction_difficulty(wins: Float[np.ndarray, "models prompts"]) -> Values:
    """How easy each prompt is to win for other models than the one in question: their mean log-odds, standardised.

    It stands in for AlpacaEval's table of difficulties. Leave the model that is judged out of `wins`: its own verdicts
    would explain themselves. Log-odds are cut at ±6, which a verdict of exactly 0 or 1 has.

    Returns:
        Mean 0 and standard deviation 1 over prompts; zeros if all prompts are alike. Shape (prompts,).
    """
    edge = 1 / (1 + np.exp(EXTREME_LOGIT))
    inside = np.clip(wins, edge, 1 - edge)
    mean = (np.log(inside) - np.log1p(-inside)).mean(axis=0)
    alike = np.ptp(mean) < 1e-9
    return np.zeros_like(mean) if alike else (mean - mean.mean()) / mean.std()


def _length_feature(longer_by: Values) -> Values:
    if not longer_by.any():
        return longer_by
    spread = longer_by.std(ddof=1)
    if spread < 1e-9 * np.abs(longer_by).max():
        raise ValueError(
            f"lengths: all answers differ by {longer_by[0]:g}, so the effect of length cannot be told from the model's"
        )
    return np.tanh(longer_by / spread)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))


def _curvature(features: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    return (features * (fitted * (1 - fitted))[:, None]).T @ features + RIDGE * np.eye(features.shape[1])


def _fit(features: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """Newton's method on the penalised log-likelihood, which is concave; steps are cut so that none overshoots."""
    weights = np.zeros(features.shape[1])
    for _ in range(STEPS):
        fitted = _sigmoid(features @ weights)
        gradient = features.T @ (wins - fitted) - RIDGE * weights
        step = np.linalg.solve(_curvature(features, fitted), gradient)
        weights = weights + step * min(1.0, 1.0 / float(np.abs(step).max() or 1.0))
        if np.abs(step).max() < 1e-10:
            return weights
    raise ValueError(f"wins: the logistic model has not converged in {STEPS} steps")
