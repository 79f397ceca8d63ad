"""Estimates a quantity of both sides: the policy's mean, the reference's, and their difference, item by item."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .comparisons import Comparison, comparisons
from .intervals import Estimate, bca_estimate, paired_difference, rng_of_report, share_estimate
from .names import REF

Values = Float[np.ndarray, " prompts"]
ByPolicy = dict[str, dict[str, Estimate]]
"""Estimates by policy."""


class Found(NamedTuple):
    """Figures of several policies on the same prompts, under the names that the report gives them."""

    estimates: dict[str, Estimate]
    """Those of the policy in question without a prefix, of another with `NAME/`; the reference's own once."""
    comparisons: dict[str, list[Comparison]]
    """By quantity, every pair of policies; empty for one policy."""
    details: dict[str, Any]
    """What is no estimate, as JSON has it."""


def sided_estimates(
    name: str,
    values: Mapping[str, Float[np.ndarray, " items"]],
    clusters: Shaped[np.ndarray, " items"] | None = None,
    *,
    counts: bool = False,
) -> dict[str, Estimate]:
    """`NAME/policy`, `NAME/ref` and `NAME/difference`, of the policies after the first as `WHO/NAME/...`.

    A mean of values that are all 0 or 1 has the interval of `share_estimate`; other means and differences have that of
    `bca_estimate`. A figure with fewer items than its interval needs is absent. A difference is over the items that
    apply to both sides.

    Args:
        name: Of the quantity.
        values: By policy, the one in question first, and "ref": one value per item, NaN where the quantity does not
            apply. Items in the same order.
        clusters: Label of each item's cluster; by default each item is one.
        counts: Whether the quantity counts something, such as tokens: then 0 and 1 are numbers like others, no share.
    """
    labels = np.arange(len(values[REF])) if clusters is None else clusters
    policies = [who for who in values if who != REF]
    found: dict[str, Estimate | None] = {}
    for who in policies:
        prefix = "" if who == policies[0] else f"{who}/"
        found[f"{prefix}{name}/policy"] = _mean(values[who], labels, counts)
        if not prefix:
            found[f"{name}/ref"] = _mean(values[REF], labels, counts)
        both = ~np.isnan(values[who] - values[REF])
        if len(np.unique(labels[both])) > 1:
            found[f"{prefix}{name}/difference"] = paired_difference(
                values[who][both], values[REF][both], rng=rng_of_report(), clusters=labels[both]
            )
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def _mean(values: Float[np.ndarray, " items"], labels: Shaped[np.ndarray, " items"], counts: bool) -> Estimate | None:
    applies = ~np.isnan(values)
    kept, clusters = values[applies], labels[applies]
    if not counts and len(kept) and np.isin(kept, (0.0, 1.0)).all():
        return share_estimate(kept, clusters, rng=rng_of_report())
    return bca_estimate(kept, rng=rng_of_report(), clusters=clusters) if len(np.unique(clusters)) > 1 else None


def every_pair(
    name: str, values: Mapping[str, Float[np.ndarray, " items"]], prompts: Sequence[Any]
) -> dict[str, list[Comparison]]:
    """Every pair of policies on one quantity, over the items that apply to all of them; empty for one policy or prompt."""
    policies = {who: row for who, row in values.items() if who != REF}
    applies = ~np.isnan(np.stack(list(policies.values()))).any(axis=0)
    kept = [prompts[i] for i in np.flatnonzero(applies).tolist()]
    if len(policies) < 2 or len({repr(prompt) for prompt in kept}) < 2:
        return {}
    return {name: comparisons(name, {who: row[applies] for who, row in policies.items()}, kept)}


def per_prompt(values: Sequence[float] | np.ndarray, samples: int) -> Values:
    """Mean over the answers to each prompt, from those of all prompts in a row."""
    return np.asarray(values, dtype=float).reshape(-1, samples).mean(axis=1)


def merged(*parts: Mapping[str, Mapping[str, Estimate]]) -> ByPolicy:
    """Several measures of the same policies as one."""
    return {who: {key: e for part in parts for key, e in part[who].items()} for who in parts[0]}
