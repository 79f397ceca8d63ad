"""Estimates a quantity of both sides: the policy's mean, the reference's, and their difference, item by item."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .comparisons import Compared, compared, difference_estimate, prompt_labels
from .intervals import UNBOUNDED, Estimate, mean_estimate
from .names import REF
from .shares import share_estimate

Values = Float[np.ndarray, " prompts"]
ByPolicy = dict[str, dict[str, Estimate]]
"""Estimates by policy."""
COUNTS = (0.0, math.inf)
"""Bounds of what counts something, such as tokens."""


class Found(NamedTuple):
    """Figures of several policies on the same prompts, under the names that the report gives them."""

    estimates: dict[str, Estimate]
    """Those of the policy in question without a prefix, of another with `NAME/`; the reference's own once."""
    comparisons: dict[str, Compared]
    """By quantity, every pair of policies and the reference; empty for one policy."""
    details: dict[str, Any]
    """What is no estimate, as JSON has it."""


def sided_estimates(
    name: str,
    values: Mapping[str, Float[np.ndarray, " items"]],
    clusters: Shaped[np.ndarray, " items"] | None = None,
    *,
    shares: bool = False,
    bounds: tuple[float, float] = UNBOUNDED,
) -> dict[str, Estimate]:
    """`NAME/policy`, `NAME/ref` and `NAME/difference`, of the policies after the first as `WHO/NAME/...`.

    A figure with fewer items than its interval needs is absent. A difference is over the items that apply to both sides.

    Args:
        name: Of the quantity.
        values: By policy, the one in question first, and "ref": one value per item, NaN where the quantity does not
            apply. Items in the same order.
        clusters: Label of each item's cluster; by default each item is one.
        shares: Whether the values are verdicts, 0 or 1 and one half for a tie: they have the interval of `share_estimate`
            and their differences that of `share_difference`, all others that of `mean_estimate`.
        bounds: The least and the greatest that a value can be; of differences, the distance between them.
    """
    labels = np.arange(len(values[REF])) if clusters is None else clusters
    policies = [who for who in values if who != REF]
    span = bounds[1] - bounds[0]
    found: dict[str, Estimate | None] = {}
    for who in policies:
        prefix = "" if who == policies[0] else f"{who}/"
        found[f"{prefix}{name}/policy"] = _mean(values[who], labels, shares, bounds)
        if not prefix:
            found[f"{name}/ref"] = _mean(values[REF], labels, shares, bounds)
        difference = values[who] - values[REF]
        both = ~np.isnan(difference)
        if len(np.unique(labels[both])) > 1:
            found[f"{prefix}{name}/difference"] = difference_estimate(
                difference[both], labels[both], shares=shares, span=span
            )
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def _mean(
    values: Float[np.ndarray, " items"], labels: Shaped[np.ndarray, " items"], shares: bool, bounds: tuple[float, float]
) -> Estimate | None:
    applies = ~np.isnan(values)
    kept, clusters = values[applies], labels[applies]
    if shares:
        return share_estimate(kept, clusters) if len(kept) else None
    return mean_estimate(kept, clusters, bounds=bounds) if len(np.unique(clusters)) > 1 else None


def every_pair(
    name: str,
    values: Mapping[str, Float[np.ndarray, " items"]],
    prompts: Sequence[Any],
    *,
    shares: bool = False,
    bounds: tuple[float, float] = UNBOUNDED,
) -> dict[str, Compared]:
    """Every pair of policies and the reference on one quantity, over the items that apply to all of them.

    Empty for one policy or prompt. Arguments as those of `sided_estimates`, with the prompt of each item.
    """
    values = {who: row for who, row in values.items() if who != REF or not np.isnan(row).all()}
    applies = ~np.isnan(np.stack(list(values.values()))).any(axis=0)
    labels = prompt_labels([prompts[i] for i in np.flatnonzero(applies).tolist()])
    if len([who for who in values if who != REF]) < 2 or len(set(labels.tolist())) < 2:
        return {}
    kept = {who: row[applies] for who, row in values.items()}
    return {name: compared(kept, labels, shares=shares, span=bounds[1] - bounds[0])}


def per_prompt(values: Sequence[float] | np.ndarray, samples: int) -> Values:
    """Mean over the answers to each prompt, from those of all prompts in a row."""
    return np.asarray(values, dtype=float).reshape(-1, samples).mean(axis=1)


def merged(*parts: Mapping[str, Mapping[str, Estimate]]) -> ByPolicy:
    """Several measures of the same policies as one."""
    return {who: {key: e for part in parts for key, e in part[who].items()} for who in parts[0]}
