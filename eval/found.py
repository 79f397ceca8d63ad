"""What a measure of answers gives to the report, and the three figures of a quantity: policy, reference, difference."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .comparisons import Comparison
from .instructions import share_estimate
from .measures import comparisons, rng_of_report
from .sampled import REF
from .stats import Estimate, bca_estimate, paired_difference


class Found(NamedTuple):
    """Figures of several policies on the same prompts, under the names that the report gives them."""

    estimates: dict[str, Estimate]
    """Those of the policy in question without a prefix, of another with `NAME/`; the reference's own once."""
    comparisons: dict[str, list[Comparison]]
    """By quantity, every pair of policies; empty for one policy."""
    details: dict[str, Any]
    """What is no estimate, as JSON has it."""


def sided_estimates(
    name: str, values: Mapping[str, Float[np.ndarray, " items"]], clusters: Shaped[np.ndarray, " items"] | None = None
) -> dict[str, Estimate]:
    """`NAME/policy`, `NAME/ref` and `NAME/difference`, of the policies after the first as `WHO/NAME/...`.

    Intervals of values that are all 0 or 1 are Wilson's, others and those of differences BCa over clusters; a figure
    with fewer items than its interval needs is absent. A difference is over the items that apply to both sides.

    Args:
        name: Of the quantity.
        values: By policy, the one in question first, and "ref": one value per item, NaN where the quantity does not
            apply. Items in the same order.
        clusters: Label of each item's cluster; by default each item is one.
    """
    labels = np.arange(len(values[REF])) if clusters is None else clusters
    policies = [who for who in values if who != REF]
    found: dict[str, Estimate | None] = {}
    for who in policies:
        prefix = "" if who == policies[0] else f"{who}/"
        found[f"{prefix}{name}/policy"] = _mean(values[who], labels)
        if not prefix:
            found[f"{name}/ref"] = _mean(values[REF], labels)
        both = ~np.isnan(values[who] - values[REF])
        if len(np.unique(labels[both])) > 1:
            found[f"{prefix}{name}/difference"] = paired_difference(
                values[who][both], values[REF][both], rng=rng_of_report(), clusters=labels[both]
            )
    return {key: estimate for key, estimate in found.items() if estimate is not None}


def _mean(values: Float[np.ndarray, " items"], labels: Shaped[np.ndarray, " items"]) -> Estimate | None:
    applies = ~np.isnan(values)
    kept, clusters = values[applies], labels[applies]
    if len(kept) and np.isin(kept, (0.0, 1.0)).all():
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
