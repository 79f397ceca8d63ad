"""Estimates shares and their paired differences by score intervals, which have a width where every item agrees.

Dependence of the items of a prompt is a design effect: by how much it multiplies the variance of a total. An interval is
that of as many independent items as would tell as much.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
from jaxtyping import Float, Shaped
from scipy import optimize, stats

from align.intervals import wilson

from .intervals import Estimate, cluster_sums, t_quantile

Items = Float[np.ndarray, " items"]
Clusters = Shaped[np.ndarray, " items"] | None
IMAGINED_CLUSTERS = 1.0
IMAGINED_ICC = 0.5
"""What is believed of dependence before any is seen: the correlation of two items of a cluster, and as how many clusters
that counts. Chosen on the laws of `scripts/bench/quality/coverage.py`; without it, one prompt that disagrees of twenty
decides the width."""


def design_effect(influence: Float[np.ndarray, " clusters"], worst: float, independent: float) -> float:
    """Variance of a total over that of independent verdicts, drawn towards that of `IMAGINED_ICC`.

    Source: Kish 1965, "Survey sampling"; the shrinking is ours.

    Args:
        influence: Per cluster its sum less what is expected of it.
        worst: The effect if all items of a cluster were the same.
        independent: Variance of the total if the items were independent. Where it is 0, the worst is taken.
    """
    if independent <= 0:
        return worst
    believed = 1 + IMAGINED_ICC * (worst - 1)
    squares, groups = influence**2, len(influence)
    if squares.sum() <= 1e-12 * independent:
        return IMAGINED_CLUSTERS * believed / (groups + IMAGINED_CLUSTERS)
    known = float(squares.sum() ** 2 / (squares**2).sum())
    observed = float(squares.sum()) * groups / (groups - 1) / independent
    return (known * observed + IMAGINED_CLUSTERS * believed) / (known + IMAGINED_CLUSTERS)


def all_alike(sizes: Float[np.ndarray, " clusters"]) -> float:
    """Design effect of clusters of these sizes if all items of one are the same."""
    return float((sizes**2).sum() / sizes.sum())


def share_estimate(values: Items, clusters: Clusters = None, *, level: float = 0.95) -> Estimate:
    """Mean of verdicts: 1 for right or won, 0 for wrong or lost, one half for a tie, or anything between.

    Verdicts without ties have Wilson's interval. With ties the share is (1 + d) / 2, d being what is won less what is
    lost, and has the interval of `share_difference`, which without ties is the same. It never has zero width.

    Args:
        values: In [0, 1]. Shape (items,), at least one.
        clusters: Label of each item's cluster, usually its prompt; by default each item is one. Shape (items,).
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there is no item, a value is outside [0, 1], or `level` is outside (0, 1).
    """
    if len(values) == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"verdicts must be one or more, in [0, 1], got {len(values)}")
    if not np.isin(values, (0.0, 1.0)).all():
        won = share_difference(2 * values - 1, clusters, level=level)
        return Estimate(float(values.mean()), (1 + won.low) / 2, (1 + won.high) / 2, won.n)
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    sums, sizes = cluster_sums(values, clusters)
    share, groups = float(values.mean()), len(sums)
    n = float(sizes.sum())
    if sizes.max() > 1:
        n /= design_effect(sums - sizes * share, all_alike(sizes), share * (1 - share) * n)
        n /= _few_clusters(groups, level)
    return Estimate(share, *wilson(share * n, n, level=level), groups)


def share_difference(differences: Items, clusters: Clusters = None, *, level: float = 0.95) -> Estimate:
    """Mean of differences of verdicts on the same item, by Tango's score interval: never of zero width.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design".

    Args:
        differences: In [-1, 1], as `first - second` of two verdicts. Shape (items,), at least one.
        clusters: As in `share_estimate`.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If there is no item, a difference is outside [-1, 1], or `level` is outside (0, 1).
    """
    if len(differences) == 0 or not (np.abs(differences) <= 1).all():
        raise ValueError(f"differences of verdicts must be one or more, in [-1, 1], got {len(differences)}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    sums, sizes = cluster_sums(differences, clusters)
    n, value, groups = float(sizes.sum()), float(differences.mean()), len(sums)
    won, lost = float(np.maximum(differences, 0).sum()), float(np.maximum(-differences, 0).sum())
    effect = 1.0
    if sizes.max() > 1 or not np.isin(differences, (-1.0, 0.0, 1.0)).all():
        effect = design_effect(sums - sizes * value, all_alike(sizes), won + lost - n * value**2)
        effect *= _few_clusters(groups, level)
    z = float(stats.norm.ppf((1 + level) / 2))
    return Estimate(value, *tango(won / effect, lost / effect, n / effect, z), groups)


def _few_clusters(groups: int, level: float) -> float:
    """By how much a variance counts more because it is estimated from so many clusters; one cluster tells none."""
    return 1.0 if groups < 2 else (t_quantile(level, groups) / float(stats.norm.ppf((1 + level) / 2))) ** 2


def tango(won: float, lost: float, n: float, z: float) -> tuple[float, float]:
    """Both ends of the score interval of P(won) - P(lost) from n paired items, of which the rest are ties.

    The score at a difference Δ divides what was found by its deviation under the likeliest law with that difference, in
    which the share lost is the larger root of a quadratic.
    """

    def score(delta: float) -> float:
        half = (2 * n - won + lost) * delta - won - lost
        lost_share = (np.sqrt(max(half**2 + 8 * n * lost * delta * (1 - delta), 0.0)) - half) / (4 * n)
        variance = n * (2 * lost_share + delta * (1 - delta))
        return float((won - lost - n * delta) / np.sqrt(max(variance, 1e-300)))

    edge, value = 1 - 1e-9, (won - lost) / n
    low, high = -1.0, 1.0
    if value > -1 and score(-edge) > z:
        nearest = min(value, edge)  # at a level near 0 even this is outside
        low = nearest if score(nearest) >= z else root(lambda delta: score(delta) - z, -edge, nearest)
    if value < 1 and score(edge) < -z:
        nearest = max(value, -edge)
        high = nearest if score(nearest) <= -z else root(lambda delta: score(delta) + z, nearest, edge)
    return low, high


def root(of: Callable[[float], float], low: float, high: float, *, xtol: float = 1e-10) -> float:
    """Where a function that has another sign at low than at high is 0."""
    return float(cast(float, optimize.brentq(of, low, high, xtol=xtol)))
