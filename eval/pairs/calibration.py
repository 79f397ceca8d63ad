"""Measures whether a policy is as sure as it is right, by its implicit rewards read as probabilities.

A margin m (nats) of a pair says that the chosen answer is preferred with probability σ(m); the chosen answer being preferred
is what happened. Two different numbers are called the calibration error of a preference-tuned model, and both are here:

- `margin_confidence`: the model of the preference is judged (σ of the margin, β and f' included).
- `sequence_confidence`: the language model is judged by exp of its mean token log-probability (Wang et al. 2023).
"""

import math
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from eval.statistics.intervals import Estimate, check_items, cluster_sums, mean_estimate, t_quantile
from eval.statistics.shares import all_alike, design_effect, root

from .ranking import Labels, correct

Values = Float[np.ndarray, " pairs"]
Scheme = Literal["width", "mass"]
BINS, FEWEST_IN_A_BIN = 10, 5
LARGEST_SCALE = 1e4
"""Of 1/T times the largest margin: beyond it the likelihood is taken as flat."""
LEAST_EFFECT = 0.5


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
    return _temperature(_likeliest_scale(margin)) if margin.any() else 1.0


def _temperature(scale: float) -> float:
    return math.inf if scale <= 0 else 1 / scale


def _likeliest_scale(margin: Values) -> float:
    """1/T, negative where the margins are wrong on the whole; infinite where all of them have one sign."""
    if (margin >= 0).all() or (margin <= 0).all():
        return math.copysign(math.inf, margin.sum())

    def slope(scale: float) -> float:
        return float((margin * probability(-scale * margin)).sum())

    reach = 1 / float(np.abs(margin).max())
    while slope(reach) > 0 or slope(-reach) < 0:
        reach *= 2
    return root(slope, -reach, reach)


def temperature_estimate(margin: Values, clusters: Labels = None, *, level: float = 0.95) -> Estimate:
    """`fitted_temperature` with the interval of its profile likelihood in 1/T, over the design effect of the prompts.

    T = 0 says that there is no finite one, and has 0 as its lower end; an infinite upper end, that nothing bounds it.

    Raises:
        ValueError: As `mean_estimate` does.
    """
    sizes = cluster_sums(margin, clusters)[1]
    check_items(margin, len(sizes), level)
    if not margin.any():
        return Estimate(1.0, 0.0, math.inf, len(sizes))
    unit = float(np.abs(margin).max())
    scaled = margin / unit
    best = _likeliest_scale(scaled)

    def loss(scale: float) -> float:
        return float(negative_log_likelihood(scale * scaled).sum())

    least, effect = float(np.log(2) * (scaled == 0).sum()), all_alike(sizes)
    if math.isfinite(best):
        doubt = probability(-best * scaled)
        independent = float((scaled**2 * doubt * (1 - doubt)).sum())
        effect = max(design_effect(cluster_sums(scaled * doubt, clusters)[0], effect, independent), LEAST_EFFECT)
        least = loss(best)
    cut = least + effect * t_quantile(level, len(sizes)) ** 2 / 2

    def end(sign: int) -> float:
        if best == sign * math.inf or loss(sign * LARGEST_SCALE) < cut:
            return sign * math.inf
        inner = best if math.isfinite(best) else -sign * LARGEST_SCALE
        return root(lambda scale: loss(scale) - cut, *sorted((inner, sign * LARGEST_SCALE))) / unit

    return Estimate(_temperature(best / unit), _temperature(end(1)), _temperature(end(-1)), len(sizes))


def debiased_error(judged: Judged, clusters: Labels = None, *, bins: int = BINS, level: float = 0.95) -> Estimate:
    """Root mean square over pairs of accuracy less confidence of their bin, without what chance alone adds to it.

    Bins of equal mass, of five pairs at least. The square of each bin's difference is lessened by the variance of that
    difference, so that a calibrated model has 0 on average; the ends are roots of those of the squared error, whose
    variance is that of a quadratic form. The plain L1 error has a kink at 0 and no interval that holds there.

    Source: the debiasing, Kumar, Liang and Ma 2019 (arXiv:1909.10155); the interval is ours.
    """
    gap, variance, weight = [], [], []
    for members in _members(judged.confidence, mass_bins(len(judged.confidence), bins), "mass"):
        off, claimed = (judged.correct - judged.confidence)[members], judged.confidence[members]
        size, mean = len(members), float(off.mean())
        sums, sizes = cluster_sums(off, None if clusters is None else clusters[members])
        groups = len(sums)
        spread = float(((sums - sizes * mean) ** 2).sum()) * groups / max(groups - 1, 1) / size
        spread = spread if groups > 1 else 0.25 * size
        gap.append(mean)
        variance.append(max(spread, float((claimed * (1 - claimed)).mean()) / (size + 1)) / size)
        weight.append(size / len(judged.confidence))
    v, w = np.array(variance), np.array(weight)
    square = np.array(gap) ** 2 - v
    value, z = float(w @ square), NormalDist().inv_cdf((1 + level) / 2)
    error = math.sqrt(float(w**2 @ (4 * np.maximum(square, 0.0) * v + 2 * v**2)))
    root, low, high = (math.sqrt(max(0.0, end)) for end in (value, value - z * error, value + z * error))
    return Estimate(root, low, high, len(judged.confidence) if clusters is None else len(np.unique(clusters)))


class BesideCalibrated(NamedTuple):
    """The plain calibration error, and what a calibrated model with the same confidences would show at this n."""

    ece: float
    typical: float
    """The median that a calibrated model shows."""
    at_most: float
    """What it shows at most, in 95% of sets of pairs."""
    p_value: float
    """How often it shows as much as `ece`."""

    def __str__(self) -> str:
        return (
            f"ECE {self.ece:.3f} in bins of equal mass; a calibrated model shows {self.typical:.3f} at this n, in 95% of "
            f"cases up to {self.at_most:.3f} (p = {self.p_value:.3f})"
        )


def beside_calibrated(
    judged: Judged, clusters: Labels = None, *, rng: np.random.Generator, bins: int = BINS, draws: int = 1000
) -> BesideCalibrated:
    """The plain error beside that of outcomes drawn from the confidences; noise alone makes either large on few pairs.

    Pairs of one prompt are not independent: the noise is stretched by the root of their design effect.
    """
    confidence, correct = judged
    parts = _members(confidence, mass_bins(len(confidence), bins), "mass")
    order, sizes = np.concatenate(parts), np.array([len(part) for part in parts])
    starts, of = np.cumsum([0, *sizes[:-1]]), confidence[order]
    noise = (rng.random((draws, len(order))) < of) - of
    sums, counts = cluster_sums(correct - confidence, clusters)
    off = sums - counts * (correct - confidence).mean()
    effect = 1.0
    if counts.max() > 1:
        effect = design_effect(off, all_alike(counts), float((confidence * (1 - confidence)).sum()))
    null = math.sqrt(effect) * np.abs(np.add.reduceat(noise, starts, axis=1)).sum(axis=1) / len(order)
    ece = expected_calibration_error(judged, bins=mass_bins(len(confidence), bins), scheme="mass")
    p_value = (1 + int((null >= ece - 1e-12).sum())) / (1 + draws)
    return BesideCalibrated(ece, float(np.median(null)), float(np.quantile(null, 0.95)), p_value)


def mass_bins(pairs: int, bins: int = BINS, *, fewest: int = FEWEST_IN_A_BIN) -> int:
    """How many bins of equal mass, ten at most by default, so many pairs fill with at least `fewest` each."""
    return max(1, min(bins, pairs // fewest))


def calibration_estimates(margin: Values, clusters: Labels = None, *, bins: int = BINS) -> dict[str, Estimate]:
    """Calibration of a model of preferences: `ece` without the bias of few pairs, `brier`, `nll` and `temperature`.

    `ece` is that of `debiased_error`; `beside_calibrated` has the plain one.

    Args:
        margin: Implicit margins in nats, shape (pairs,).
        clusters: The prompt of each pair.
        bins: Bins of the calibration error, at most.

    Raises:
        ValueError: If there are fewer than two prompts.
    """
    nll = negative_log_likelihood(margin)
    return {
        "brier": mean_estimate(brier(margin), clusters, bounds=(0.0, 1.0)),
        "nll": mean_estimate(nll, clusters, bounds=(0.0, math.inf)),
        "temperature": temperature_estimate(margin, clusters),
        "ece": debiased_error(margin_confidence(margin), clusters, bins=bins),
    }
