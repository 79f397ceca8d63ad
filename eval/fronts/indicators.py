"""Measures what a set of policies achieves on several objectives: the front, its volume, its use to preferences.

Points have shape (points, objectives): one row per policy or checkpoint, each coordinate a mean over prompts. Every
function maximises; `oriented` turns objectives that are to be minimised. Compare runs by these numbers with one fixed
reference for all of them: a volume says nothing without its reference, and changes with the unit of every objective, so
bring objectives to a common scale first (0 to 1).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from align.weighting.archive import hypervolume, nondominated
from eval.statistics.intervals import Estimate, over_seeds

Points = Float[np.ndarray, "points objectives"]
Point = Float[np.ndarray, " objectives"]

DIVISIONS = 50
RESAMPLES = 2_000
STEP_POWER = 0.6  # the wide step is of n^0.6 prompts in the place of n


def oriented(points: Points, directions: Sequence[str]) -> Points:
    """The same points with every objective to be maximised: those marked "min" change their sign.

    Raises:
        ValueError: If there is not one direction, max or min, for each objective.
    """
    if len(directions) != points.shape[1] or not set(directions) <= {"max", "min"}:
        raise ValueError(
            f"directions must be max or min for each of {points.shape[1]} objectives, got {list(directions)}"
        )
    return points * np.array([1.0 if direction == "max" else -1.0 for direction in directions])


def front(points: Points) -> Float[np.ndarray, "front objectives"]:
    """The points that no other dominates, each once, sorted by the first objective."""
    return np.unique(points[nondominated(points)], axis=0)


@cache
def simplex_lattice(objectives: int, divisions: int = DIVISIONS) -> Float[np.ndarray, "weights objectives"]:
    """All weight vectors whose entries are multiples of 1/divisions and sum to 1, the first falling from 1 to 0.

    Source: Scheffé 1958, "Experiments with mixtures".

    Raises:
        ValueError: If either number is below 1.
    """
    if objectives < 1 or divisions < 1:
        raise ValueError(f"objectives and divisions must be at least 1, got {objectives} and {divisions}")
    chosen = list(combinations(range(divisions + objectives - 1), objectives - 1))  # where bars part the divisions
    bars = np.array(chosen, dtype=int).reshape(len(chosen), objectives - 1)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), divisions + objectives - 1)])
    lattice = (np.diff(edges, axis=1) - 1)[::-1] / divisions
    lattice.setflags(write=False)  # it is kept
    return lattice


def r2(points: Points, utopia: Point, *, divisions: int = DIVISIONS) -> float:
    """R2 indicator: mean over weights w of min over points of max_k w_k |utopia_k - point_k|. Smaller is better, 0 best.

    The textbook's mean over the simplex lattice. The code of multi-objective GFlowNets (Jain et al. 2023,
    arXiv:2210.12765) divides by the norm of the whole weight matrix instead of by the number of weights, so its values
    depend on how many there are and differ from these.

    Source: Hansen and Jaszkiewicz 1998, "Evaluating the quality of approximations to the non-dominated set"; in this
    form Brockhoff, Wagner and Trautmann 2012.

    Raises:
        ValueError: If there are no points.
    """
    _some(points)
    weights = simplex_lattice(points.shape[1], divisions)
    distances = (weights[:, None, :] * np.abs(utopia - points)[None]).max(axis=2)
    return float(distances.min(axis=1).mean())


def expected_utility(points: Points, *, divisions: int = DIVISIONS) -> float:
    """Mean over weights w of the best w·point: what somebody with unknown linear preferences gets. Larger is better.

    Preferences are uniform over the simplex lattice. Points inside the convex hull of the front change nothing.

    Source: Zintgraf et al. 2015, "Quality assessment of MORL algorithms: a utility-based approach".

    Raises:
        ValueError: If there are no points.
    """
    _some(points)
    return float((simplex_lattice(points.shape[1], divisions) @ points.T).max(axis=1).mean())


def sparsity(points: Points) -> float:
    """Mean over neighbours on the front of their squared distance, objective by objective. Smaller is denser.

    Each objective is sorted on its own, as in the paper. 0 for a front of one point, so it means nothing without the
    hypervolume beside it.

    Source: Xu et al. 2020, "Prediction-guided multi-objective reinforcement learning for continuous robot control"
    (ICML), equation 5.

    Raises:
        ValueError: If there are no points.
    """
    _some(points)
    kept = np.sort(front(points), axis=0)
    return float((np.diff(kept, axis=0) ** 2).sum() / max(1, len(kept) - 1))


def igd_plus(points: Points, reference_front: Float[np.ndarray, "known objectives"]) -> float:
    """Inverted generational distance plus: how far, on average, the points fall short of a known front. 0 is best.

    For each z of the known front the distance to the nearest point counts only the objectives in which that point is
    worse, sqrt(sum_k max(z_k - point_k, 0)²).

    Source: Ishibuchi et al. 2015, "Modified distance calculation in generational distance and inverted generational
    distance".

    Raises:
        ValueError: If there are no points on either side.
    """
    _some(points)
    _some(reference_front)
    short = np.maximum(reference_front[:, None, :] - points[None], 0)
    return float(np.sqrt((short**2).sum(axis=2)).min(axis=1).mean())


def volume_over_seeds(
    fronts: Sequence[Float[np.ndarray, "_ objectives"]], reference: Point, *, level: float = 0.95
) -> Estimate:
    """Mean hypervolume of the same run with several seeds, with the interval over seeds.

    Args:
        fronts: The points of each seed.
        reference: The worst corner, the same for everything that is compared.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    return over_seeds(np.array([hypervolume(points, reference) for points in fronts]), level=level)


def volume_over_prompts(
    scores: Float[np.ndarray, "points prompts objectives"],
    reference: Point,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Hypervolume of the points' means, corrected for the luck of the front; see `indicator_estimate`.

    It says nothing of seeds; for those see `volume_over_seeds`.

    Args:
        scores: Every objective of every answer, by point and prompt.
        reference: The worst corner, the same for everything that is compared.
        rng: Source of randomness.
        level: Coverage, in (0, 1).
        resamples: Draws.

    Raises:
        ValueError: If there are fewer than two prompts, a score is not finite, or `level` is outside (0, 1).
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {int((~np.isfinite(scores)).sum())} that are not")
    drawn = drawn_means(scores, rng=rng, draws=resamples)
    return indicator_estimate(lambda points: hypervolume(points, reference), drawn, level=level, least=0.0)


class Drawn(NamedTuple):
    """The points' means, and how far they may be off: draws of the normal law of their error."""

    means: Points
    errors: Float[np.ndarray, "draws points objectives"]
    n: int
    """Prompts: the fewest that an objective applies to."""


def drawn_means(
    scores: Float[np.ndarray, "points prompts objectives"], *, rng: np.random.Generator, draws: int = RESAMPLES
) -> Drawn:
    """Means over prompts, and draws of their error, which all points share prompt by prompt.

    Args:
        scores: By point and prompt; NaN where an objective does not apply. A mean is over the prompts that it applies to.
        rng: Source of randomness.
        draws: How many.

    Raises:
        ValueError: If there are fewer than two prompts for some objective.
    """
    points, prompts, objectives = scores.shape
    by_prompt = scores.transpose(1, 0, 2).reshape(prompts, -1)
    applies = ~np.isnan(by_prompt)
    counts = applies.sum(axis=0)
    n = int(counts.min())
    if n < 2:
        raise ValueError(f"an interval needs at least 2 prompts, got {n}")
    means = np.where(applies, by_prompt, 0.0).sum(axis=0) / counts
    influence = np.where(applies, by_prompt - means, 0.0) / counts * np.sqrt(counts / (counts - 1))
    _, size, axes = np.linalg.svd(influence, full_matrices=False)
    heavier = np.sqrt((n - 1) / rng.chisquare(n - 1, size=(draws, 1)))  # the deviation is an estimate too
    errors = heavier * (rng.standard_normal((draws, len(size))) * size) @ axes
    shape = (points, objectives)
    return Drawn(means.reshape(shape), errors.reshape(draws, *shape), n)


def indicator_estimate(
    indicator: Callable[[Points], float], drawn: Drawn, *, level: float = 0.95, least: float = -math.inf
) -> Estimate:
    """An indicator of the points' means, corrected for the luck of the front: the noisier the points, the better the best.

    Where points tie, the indicator has a kink, at which a bootstrap fails and lies too high. There the law of its error is
    that of its change by a step that is wide against the noise, here n^0.2 times as wide, scaled back. Where points are
    merely close that corrects too much, and plain percentiles hold. The interval is the hull of both, the value the
    corrected one. For many close points the interval is too wide: 99% at 95%.

    Source: Fang and Santos 2019 (arXiv:1404.3763), on directionally differentiable functions; the hull is ours.

    Args:
        indicator: Of points, continuous.
        drawn: From `drawn_means`.
        level: Coverage, in (0, 1).
        least: The least that the indicator can be.

    Raises:
        ValueError: If `level` is outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    means, errors, n = drawn
    value = float(indicator(means))
    wider = math.sqrt(n / max(2.0, n**STEP_POWER))
    moved = np.array([indicator(means + wider * error) - value for error in errors]) / wider
    plain = np.array([indicator(means + error) for error in errors])
    if np.ptp(plain) <= 1e-12 * (
        1 + abs(value)
    ):  # nothing moves it: all prompts alike, or no point above the worst corner
        return Estimate(value, -math.inf, math.inf, n)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    (wide_low, wide_high), (low, high) = value - np.quantile(moved, tails[::-1]), np.quantile(plain, tails)
    corrected = value - float(np.median(moved))
    low, high = float(min(wide_low, low)), float(max(wide_high, high))
    return Estimate(max(least, corrected), max(least, low), max(least, high), n)


def _some(points: Float[np.ndarray, "_ objectives"]) -> None:
    if len(points) == 0:
        raise ValueError("at least one point is needed, got none")
