"""Finds the front of several runs on several objectives: who is on it, its worth, and how sure that is."""

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from align.fronts.sparse import DIGITS
from align.weighting.archive import hypervolume, nondominated
from eval.statistics.intervals import Estimate, claimed, mean_estimate, rng_of_report
from eval.statistics.names import REF

from .indicators import DIVISIONS, drawn_means, expected_utility, indicator_estimate, r2, sparsity, volume_over_seeds

MOST_WEIGHTS = 2_000
OVER_SEEDS = "front/hypervolume_over_seeds/"
SEED_KEYS = ("seed", "output_dir")


class Front(NamedTuple):
    """Runs as points, one coordinate for each objective, as large as can be. All values are the rewards' own."""

    objectives: list[str]
    points: dict[str, list[float]]
    """By run, and "ref": means over the prompts to which an objective applies for everybody."""
    intervals: dict[str, list[tuple[float, float]]]
    """Likewise: of each coordinate the 95% interval over prompts."""
    prompts: dict[str, int]
    """To how many prompts each objective applies for everybody."""
    reference: list[float]
    """The worst corner of the hypervolume."""
    on_front: dict[str, bool]
    """Whether no other run is as good in all objectives and better in one."""
    share_of_draws: dict[str, float]
    """In which share of the draws of the means' error a run is on the front: a description, no probability."""
    seeds: dict[str, list[str]]
    """Runs that differ by their seed alone, under the name of the first."""
    estimates: dict[str, Estimate]
    """`front/hypervolume`, `front/r2`, `front/expected_utility` and `front/sparsity` of all runs together, with intervals
    over prompts; `hypervolume` of each run alone (`WHO/hypervolume` for runs after the first); and
    `front/hypervolume_over_seeds/NAME`, the mean over the seeds of a recipe with its interval over seeds."""

    def details(self) -> dict[str, Any]:
        """What is no estimate, as JSON has it."""
        named = {who: dict(zip(self.objectives, point, strict=True)) for who, point in self.points.items()}
        return {
            "points": named,
            "prompts": self.prompts,
            "reference_point": dict(zip(self.objectives, self.reference, strict=True)),
            "on_front": [who for who, yes in self.on_front.items() if yes],
            "share_of_draws": self.share_of_draws,
            "seeds": self.seeds,
        }


def front_of(
    scores: Mapping[str, Float[np.ndarray, "prompts objectives"]],
    scales: Mapping[str, tuple[float, float]],
    *,
    ranges: Mapping[str, tuple[float, float]],
    recipes: Mapping[str, Mapping[str, Any]],
    reference_point: Mapping[str, float] | None = None,
) -> Front | None:
    """The front of runs that answered the same prompts; None with fewer than two objectives that two prompts share.

    Volumes, R2, expected utility and sparsity are of values on the scale from 0 to 1 of `scales`, and an objective counts
    on the prompts to which it applies for every run and the reference. A run below the reference point in any objective
    has no volume. If that point is the reference policy's own values, its noise is in the interval, and what it shares
    with the runs', prompt by prompt, is not. The utopia of R2 is 1 in every objective.

    Args:
        scores: By run, and "ref": the value of each prompt in each objective, NaN where it does not apply.
        scales: By objective, in their order: the value that is worth 0 and that which is worth 1.
        ranges: By objective the least and the greatest that it can be, infinite where none is stated. What was seen is no bound.
        recipes: By run the recipe as it was read, for those that have one.
        reference_point: A value of each objective; the reference policy's by default.
    """
    runs = [who for who in scores if who != REF]
    table = np.stack([scores[who] for who in (*runs, REF)])
    table = np.where(np.isnan(table).any(axis=0), np.nan, table)
    counts = (~np.isnan(table[0])).sum(axis=0)
    kept = np.flatnonzero(counts > 1)
    if len(kept) < 2:
        return None
    names = [name for name, count in zip(scales, counts, strict=True) if count > 1]
    low, high = np.array([scales[name] for name in names]).T
    table = (table[:, :, kept] - low) / (high - low)
    drawn = drawn_means(table, rng=rng_of_report())
    means, zero, weights = drawn.means, np.zeros(len(names)), _divisions(len(names))
    fixed = None if reference_point is None else np.array([reference_point[name] for name in names])
    worst = means[-1] if fixed is None else (fixed - low) / (high - low)

    def above(points: np.ndarray) -> np.ndarray:
        return points[:-1] - (points[-1] if fixed is None else worst)

    def of(indicator: Callable[[np.ndarray], float], least: float = 0.0) -> Estimate:
        return indicator_estimate(indicator, drawn, least=least)

    spread = sparsity(means[:-1])
    estimates = {
        "front/hypervolume": of(lambda p: hypervolume(above(p), zero)),
        "front/r2": of(lambda p: r2(p[:-1], zero + 1, divisions=weights)),
        "front/expected_utility": of(lambda p: expected_utility(p[:-1], divisions=weights), -math.inf),
        "front/sparsity": Estimate(spread, -math.inf, math.inf, drawn.n),
    }
    for i, who in enumerate(runs):
        name = "hypervolume" if i == 0 else f"{who}/hypervolume"
        estimates[name] = of(lambda p, i=i: hypervolume(above(p)[[i]], zero))
    groups = seeds_of(runs, recipes)
    for name, members in groups.items():
        if len(members) > 1:
            each = [above(means)[[runs.index(who)]] for who in members]
            estimates[f"{OVER_SEEDS}{name}"] = volume_over_seeds(each, zero)
    points = means[:-1]
    best = _nondominated(points)
    shares = np.mean([_nondominated(points + error[:-1]) for error in drawn.errors], axis=0)
    intervals = {
        who: [
            (e.low, e.high)
            for e in (_coordinate(rows[:, k], low[k], high[k], ranges[name]) for k, name in enumerate(names))
        ]
        for who, rows in zip((*runs, REF), table, strict=True)
    }
    return Front(
        objectives=names,
        points={who: (row * (high - low) + low).tolist() for who, row in zip((*runs, REF), means, strict=True)},
        intervals=intervals,
        prompts={name: int(counts[k]) for name, k in zip(names, kept, strict=True)},
        reference=(worst * (high - low) + low).tolist(),
        on_front={who: bool(yes) for who, yes in zip(runs, best, strict=True)},
        share_of_draws={who: float(share) for who, share in zip(runs, shares, strict=True)},
        seeds=groups,
        estimates={key: e if OVER_SEEDS in key else claimed(e) for key, e in estimates.items()},
    )


def _nondominated(points: np.ndarray) -> np.ndarray:
    """Of points that agree but for rounding, as those of policies that answer alike, none dominates another."""
    return nondominated(np.round(points, DIGITS))


def _coordinate(scaled: np.ndarray, low: float, high: float, bounds: tuple[float, float]) -> Estimate:
    """One objective of one run, on its own scale."""
    known = scaled[~np.isnan(scaled)] * (high - low) + low
    return claimed(mean_estimate(known, bounds=bounds))


def seeds_of(runs: Sequence[str], recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Runs whose recipes differ by `train.seed` and `train.output_dir` alone, under the name of the first of them."""
    groups: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for who in runs:
        recipe: Any = copy.deepcopy(dict(recipes.get(who, {"run": who})))
        for key in SEED_KEYS if isinstance(recipe.get("train"), dict) else ():
            recipe["train"].pop(key, None)
        first = names.setdefault(json.dumps(recipe, sort_keys=True, default=str), who)
        groups.setdefault(first, []).append(who)
    return groups


def _divisions(objectives: int) -> int:
    """The finest lattice of weights, up to fifty divisions, that does not hold more than 2,000."""
    return max(
        d for d in range(1, DIVISIONS + 1) if d == 1 or math.comb(d + objectives - 1, objectives - 1) <= MOST_WEIGHTS
    )
