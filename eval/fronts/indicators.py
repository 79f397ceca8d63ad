"""Measures what a set of policies achieves on several objectives: the front, its volume, its use to preferences.

Points have shape (points, objectives): one row per policy or checkpoint, each coordinate a mean over prompts. Every
function maximises; `oriented` turns objectives that are to be minimised. Compare runs by these numbers with one fixed
reference for all of them: a volume says nothing without its reference, and changes with the unit of every objective, so
bring objectives to a common scale first (0 to 1).
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Float

from align.weighting.archive import hypervolume, nondominated
from eval.statistics.intervals import DRAWS_AT_ONCE, Estimate, mean_estimate

Points = Float[np.ndarray, "points objectives"]
Point = Float[np.ndarray, " objectives"]

DIVISIONS = 50
RESAMPLES = 2_000


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
    fronts: Sequence[Float[np.ndarray, "_ objectives"]],
    reference: Point,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Estimate:
    """Mean hypervolume of the same run with several seeds, with the interval over seeds.

    Args:
        fronts: The points of each seed.
        reference: The worst corner, the same for everything that is compared.
        rng: Source of randomness of the interval.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    volumes = np.array([hypervolume(points, reference) for points in fronts])
    return mean_estimate(volumes, rng=rng, level=level, resamples=RESAMPLES)


def volume_over_prompts(
    scores: Float[np.ndarray, "points prompts objectives"],
    reference: Point,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Hypervolume of the points' means with a percentile bootstrap interval over the prompts that they share.

    All points are resampled together, by prompt. The volume of noisy means is too large on average, since a front picks
    the luckiest, and each draw adds noise once more: the interval lies too high for many close points and few prompts.
    It says nothing of seeds; for those see `volume_over_seeds`.

    Args:
        scores: Every objective of every answer, by point and prompt.
        reference: The worst corner, the same for everything that is compared.
        rng: Source of randomness.
        level: Coverage, in (0, 1).
        resamples: Bootstrap draws.

    Raises:
        ValueError: If there are fewer than two prompts, a score is not finite, or `level` is outside (0, 1).
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {int((~np.isfinite(scores)).sum())} that are not")
    draws = means_over_prompts(scores, rng=rng, resamples=resamples)
    return percentiles(
        lambda points: hypervolume(points, reference), scores.mean(axis=1), draws, scores.shape[1], level
    )


def means_over_prompts(
    scores: Float[np.ndarray, "points prompts objectives"], *, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Float[np.ndarray, "draws points objectives"]:
    """The points' means in bootstrap draws of the prompts, which all points share.

    Args:
        scores: By point and prompt; NaN where an objective does not apply. A mean is over the prompts that it applies to.
        rng: Source of randomness.
        resamples: Bootstrap draws. Those without any prompt for some objective are left out.

    Raises:
        ValueError: If there are fewer than two prompts.
    """
    prompts = scores.shape[1]
    if prompts < 2:
        raise ValueError(f"an interval needs at least 2 prompts, got {prompts}")
    by_prompt = scores.transpose(1, 0, 2).reshape(prompts, -1)
    applies = ~np.isnan(by_prompt)
    known = np.where(applies, by_prompt, 0.0)
    rows = max(1, DRAWS_AT_ONCE // prompts)
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=min(rows, resamples - start)).astype(float)
        counts = drawn @ applies
        whole = (counts > 0).all(axis=1)
        parts.append((drawn @ known)[whole] / counts[whole])
    return np.concatenate(parts).reshape(-1, scores.shape[0], scores.shape[2])


def percentiles(
    indicator: Callable[[Points], float],
    points: Points,
    draws: Float[np.ndarray, "draws points objectives"],
    n: int,
    level: float = 0.95,
) -> Estimate:
    """An indicator of the points, with the interval between its percentiles over the draws.

    Args:
        indicator: Any of this module's, the rest of its arguments given.
        points: The means.
        draws: Of these means, from `means_over_prompts`.
        n: How many independent items the means rest on.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If `level` is outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    tail = (1 - level) / 2
    low, high = np.quantile([indicator(means) for means in draws], [tail, 1 - tail])
    return Estimate(indicator(points), float(low), float(high), n)


def _some(points: Float[np.ndarray, "_ objectives"]) -> None:
    if len(points) == 0:
        raise ValueError("at least one point is needed, got none")
