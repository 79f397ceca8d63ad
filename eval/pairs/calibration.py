"""Measures whether a policy is as sure as it is right, by its implicit rewards read as probabilities.

A margin m (nats) of a pair says that the chosen answer is preferred with probability σ(m); the chosen answer being preferred
is what happened. Two different numbers are called the calibration error of a preference-tuned model, and both are here:

- `margin_confidence`: the model of the preference is judged (σ of the margin, β and f' included).
- `sequence_confidence`: the language model is judged by exp of its mean token log-probability (Wang et al. 2023).
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from eval.statistics.intervals import RESAMPLES, Estimate

from .ranking import correct

Values = Float[np.ndarray, " pairs"]
Scheme = Literal["width", "mass"]


class Bin(NamedTuple):
    """One bar of a reliability diagram: confidences in [low, high], their mean, the share that was right, how many."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


class Judged(NamedTuple):
    """A confidence in [0, 1] and whether it was right (1, 0, or one half for a tie), for each pair; each (pairs,)."""

    confidence: Values
    correct: Values


def probability(margin: Values) -> Values:
    """σ(m), without overflow. Shape (pairs,)."""
    small = np.exp(-np.abs(margin))
    return np.where(margin >= 0, 1.0, small) / (1.0 + small)


def margin_confidence(margin: Values) -> Judged:
    """Confidence max(σ(m), σ(-m)) of a binary choice, right where m > 0.

    Args:
        margin: Implicit reward of the chosen answer minus that of the rejected, in nats. Shape (pairs,).
    """
    p = probability(margin)
    return Judged(np.maximum(p, 1.0 - p), correct(margin))


def sequence_confidence(chosen_mean_logp: Values, rejected_mean_logp: Values) -> Judged:
    """Confidence exp(mean token log-probability of the chosen answer), right where that mean is the larger one.

    Source: the figures of Wang et al. 2023 (arXiv:2309.16240), as its code computes them. A geometric mean of token
    probabilities is no probability that an answer is preferred: this number says how peaked the model is.
    """
    return Judged(np.exp(chosen_mean_logp), correct(chosen_mean_logp - rejected_mean_logp))


def reliability(judged: Judged, *, bins: int = 10, scheme: Scheme = "width") -> list[Bin]:
    """Confidence against accuracy, bin by bin; empty bins are left out.

    Args:
        judged: Confidences and outcomes.
        bins: How many.
        scheme: "width" cuts [0, 1] into equal parts (1.0 belongs to the last one), "mass" gives each bin as many pairs.

    Raises:
        ValueError: If a confidence is outside [0, 1], there are no pairs, or `bins` is not positive.
    """
    confidence, correct = judged
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if len(confidence) == 0:
        raise ValueError("calibration needs at least one pair, got none")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidences must be in [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    found = []
    for index, members in enumerate(_members(confidence, bins, scheme)):
        if len(members):
            low, high = (
                (edges[index], edges[index + 1])
                if scheme == "width"
                else (confidence[members].min(), confidence[members].max())
            )
            found.append(
                Bin(
                    float(low),
                    float(high),
                    float(confidence[members].mean()),
                    float(correct[members].mean()),
                    len(members),
                )
            )
    return found


def _members(confidence: Values, bins: int, scheme: Scheme) -> list[np.ndarray]:
    if scheme == "width":
        which = np.minimum((confidence * bins).astype(int), bins - 1)
        return [np.flatnonzero(which == index) for index in range(bins)]
    return list(np.array_split(np.argsort(confidence, kind="stable"), bins))


def expected_calibration_error(judged: Judged, *, bins: int = 10, scheme: Scheme = "width") -> float:
    """Mean over pairs of |accuracy - confidence| of their bin; in [0, 1].

    Source: Naeini et al. 2015 (equal width); Nixon et al. 2019 (arXiv:1904.01685, equal mass).
    """
    parts = reliability(judged, bins=bins, scheme=scheme)
    return sum(part.n * abs(part.accuracy - part.confidence) for part in parts) / len(judged.confidence)


def brier(margin: Values) -> Values:
    """(1 - σ(m))² per pair: the squared error of the predicted probability. Shape (pairs,). Source: Brier 1950."""
    return (1.0 - probability(margin)) ** 2


def negative_log_likelihood(margin: Values) -> Values:
    """-log σ(m) per pair, in nats. Shape (pairs,)."""
    return np.logaddexp(0.0, -margin)


def fitted_temperature(margin: Values) -> float:
    """The T > 0 for which σ(m/T) has the best likelihood: above 1, the policy is too sure.

    The likelihood is concave in 1/T. If every pair is ranked rightly there is no finite optimum but 0 (more sure is always
    better); if the margins are wrong on the whole it is infinite (knowing nothing would be better).

    Source: Platt 1999; Guo et al. 2017 (arXiv:1706.04599).
    """
    nonzero = margin[margin != 0]
    if len(nonzero) == 0 or (nonzero > 0).all():
        return 0.0 if len(nonzero) else 1.0
    if nonzero.sum() <= 0:  # the slope at 1/T = 0 is minus half the mean margin
        return math.inf

    def slope(scale: float) -> float:
        return float((margin * probability(-scale * margin)).sum())

    low, high = 0.0, 1.0
    while slope(high) > 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return 1 / ((low + high) / 2)


def calibration_estimates(
    margin: Values, *, rng: np.random.Generator, bins: int = 10, resamples: int = RESAMPLES // 10
) -> dict[str, Estimate]:
    """Calibration of a model of preferences, with percentile bootstrap intervals over pairs.

    A calibration error is biased upwards on few pairs (noise in a bin adds to it), and so is its interval: compare runs on
    the same pairs, and a perfectly calibrated model does not show 0. Where the resampled values all lie on one side of
    the value itself, the interval is widened to it.

    Args:
        margin: Implicit margins in nats, shape (pairs,).
        rng: Source of randomness.
        bins: Bins of the calibration errors.
        resamples: Bootstrap draws.

    Raises:
        ValueError: If there are fewer than two pairs.
    """
    if len(margin) < 2:
        raise ValueError(f"a confidence interval needs at least 2 pairs, got {len(margin)}")
    judged = margin_confidence(margin)
    draws = rng.integers(len(margin), size=(resamples, len(margin)))

    def error(rows: np.ndarray, scheme: Scheme) -> float:
        return expected_calibration_error(
            Judged(judged.confidence[rows], judged.correct[rows]), bins=bins, scheme=scheme
        )

    everything = np.arange(len(margin))
    measures = {
        "ece": lambda rows: error(rows, "width"),
        "ece_equal_mass": lambda rows: error(rows, "mass"),
        "brier": lambda rows: float(brier(margin[rows]).mean()),
        "nll": lambda rows: float(negative_log_likelihood(margin[rows]).mean()),
        "temperature": lambda rows: fitted_temperature(margin[rows]),
    }
    estimates = {}
    for name, measure in measures.items():
        values = np.sort([measure(rows) for rows in draws])
        low, high = values[int(0.025 * (resamples - 1))], values[math.ceil(0.975 * (resamples - 1))]
        value = measure(everything)
        estimates[name] = Estimate(value, min(float(low), value), max(float(high), value), len(margin))
    return estimates
