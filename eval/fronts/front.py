"""Finds the front of several runs on several objectives: who is on it, its worth, and how sure that is."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from align.weighting.archive import hypervolume, nondominated
from eval.statistics.intervals import Estimate, rng_of_report
from eval.statistics.names import REF

from .indicators import DIVISIONS, expected_utility, means_over_prompts, percentiles, r2, sparsity, volume_over_seeds

MOST_WEIGHTS = 2_000
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
    """In which share of the bootstrap draws over prompts a run is on the front."""
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
    recipes: Mapping[str, Mapping[str, Any]],
    reference_point: Mapping[str, float] | None = None,
) -> Front | None:
    """The front of runs that answered the same prompts; None with fewer than two objectives that two prompts share.

    Volumes, R2, expected utility and sparsity are of values on the scale from 0 to 1 of `scales`, and an objective counts
    on the prompts to which it applies for every run and the reference. A run below the reference point in any objective
    has no volume. If that point is the reference policy's own values, it is resampled with the runs', prompt by prompt:
    its noise is in the interval, and what it shares with theirs is not. The utopia of R2 is 1 in every objective.

    Args:
        scores: By run, and "ref": the value of each prompt in each objective, NaN where it does not apply.
        scales: By objective, in their order: the value that is worth 0 and that which is worth 1.
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
    means = np.nanmean(table, axis=1)
    draws = means_over_prompts(table, rng=rng_of_report())
    if reference_point is None:
        worst, worst_of_draw = means[-1], draws[:, -1:]
    else:
        worst = (np.array([reference_point[name] for name in names]) - low) / (high - low)
        worst_of_draw = worst
    points, drawn, above = means[:-1], draws[:, :-1], draws[:, :-1] - worst_of_draw
    n, zero, weights = int(counts[kept].min()), np.zeros(len(names)), _divisions(len(names))
    estimates = {
        "front/hypervolume": percentiles(lambda p: hypervolume(p, zero), points - worst, above, n),
        "front/r2": percentiles(lambda p: r2(p, zero + 1, divisions=weights), points, drawn, n),
        "front/expected_utility": percentiles(lambda p: expected_utility(p, divisions=weights), points, drawn, n),
        "front/sparsity": percentiles(sparsity, points, drawn, n),
    }
    for i, who in enumerate(runs):
        name = "hypervolume" if i == 0 else f"{who}/hypervolume"
        estimates[name] = percentiles(lambda p: hypervolume(p, zero), (points - worst)[[i]], above[:, [i]], n)
    groups = seeds_of(runs, recipes)
    for name, members in groups.items():
        if len(members) > 1:
            each = [(points - worst)[[runs.index(who)]] for who in members]
            estimates[f"front/hypervolume_over_seeds/{name}"] = volume_over_seeds(each, zero, rng=rng_of_report())
    best, shares = nondominated(points), np.mean([nondominated(p) for p in drawn], axis=0)
    ends = np.quantile(draws, [0.025, 0.975], axis=0) * (high - low) + low
    return Front(
        objectives=names,
        points={who: (row * (high - low) + low).tolist() for who, row in zip((*runs, REF), means, strict=True)},
        intervals={who: [(float(a), float(b)) for a, b in ends[:, i].T] for i, who in enumerate((*runs, REF))},
        prompts={name: int(counts[k]) for name, k in zip(names, kept, strict=True)},
        reference=(worst * (high - low) + low).tolist(),
        on_front={who: bool(yes) for who, yes in zip(runs, best, strict=True)},
        share_of_draws={who: float(share) for who, share in zip(runs, shares, strict=True)},
        seeds=groups,
        estimates=estimates,
    )


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
