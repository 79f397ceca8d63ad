"""Shares of groups of people, the share of the group that is worst off, and how far people of one group agree."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Shaped

from .intervals import Estimate, mean_estimate
from .shares import share_estimate

WORST = "worst_group"
Labels = Shaped[np.ndarray, " items"]


def group_shares(
    values: Float[np.ndarray, " items"], groups: Labels, clusters: Labels | None = None, *, level: float = 0.95
) -> dict[str, Estimate]:
    """The mean verdict of each group, and of the one that has the least (`worst_group`).

    Which group is worst is chosen by the same data, so its own interval would be too low. Its interval here goes from the least
    lower end to the least upper end of intervals that hold for all groups at once (each at 1 - (1 - level) / groups), and so
    holds the least true share at `level` or more. Its `n` is that of the smallest group.

    Source: worst-group win rates, Chakraborty et al. 2024, "MaxMin-RLHF" (arXiv:2402.08925), section 5.

    Args:
        values: Verdicts in [0, 1]; NaN is none.
        groups: The group of each item, as text.
        clusters: Label of each item's prompt.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If a group has verdicts on fewer than two prompts; it is named.
    """
    known = ~np.isnan(values)
    names = sorted(set(groups.tolist()))
    at_once = 1 - (1 - level) / len(names)
    own, joint = {}, []
    for name in names:
        members = known & (groups == name)
        labels = np.flatnonzero(members) if clusters is None else clusters[members]
        if len(np.unique(labels)) < 2:
            raise ValueError(
                f"the group {name!r} has verdicts on {len(np.unique(labels))} prompts; an interval needs 2"
            )
        own[name] = share_estimate(values[members], labels, level=level)
        joint.append(share_estimate(values[members], labels, level=at_once))
    worst = min(joint, key=lambda estimate: estimate.value)
    fewest = min(one.n for one in joint)  # an interval that a small group has no part in would claim too much
    low, high = min(one.low for one in joint), min(one.high for one in joint)
    return {f"group/{name}": one for name, one in own.items()} | {WORST: Estimate(worst.value, low, high, fewest)}


def agreement_of_groups(
    items: Sequence[Sequence[tuple[str, str, int]]], clusters: Labels | None = None
) -> dict[str, Estimate]:
    """How often two people of one group say the same of an item (`within`), and two of different groups (`between`).

    Each item counts once: the mean over its pairs of people. Where `between` is below `within`, groups differ.

    Args:
        items: For each item who said what: person, group, and the side.
        clusters: The prompt of each item.

    Returns:
        `within` and `between`; one is missing where fewer than two prompts have such people.
    """
    labels = np.arange(len(items)) if clusters is None else clusters
    found: dict[str, tuple[list[float], list[int]]] = {"within": ([], []), "between": ([], [])}
    for number, said in enumerate(items):
        same: dict[str, list[bool]] = {"within": [], "between": []}
        for (one, mine, first), (other, theirs, second) in combinations(said, 2):
            if one != other:
                same["within" if mine == theirs else "between"].append(first == second)
        for kind, agreed in same.items():
            if agreed:
                found[kind][0].append(float(np.mean(agreed)))
                found[kind][1].append(number)
    return {
        kind: mean_estimate(np.array(means), labels[numbers], bounds=(0.0, 1.0))
        for kind, (means, numbers) in found.items()
        if len(np.unique(labels[numbers])) > 1
    }
