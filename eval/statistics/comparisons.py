"""Compares several runs on the same items, with p-values corrected for how many were looked at."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from align.errors import RunError

from .intervals import DRAWS_AT_ONCE, RESAMPLES, Estimate, check_items, cluster_sums, paired_difference, rng_of_report


class Comparison(NamedTuple):
    """Two runs on the same items. `p_holm` is corrected for all pairs of runs that were compared together."""

    first: str
    second: str
    difference: Estimate
    """Mean of first - second. The intervals of all pairs hold at once: each is wider, after Bonferroni."""
    p_value: float
    p_holm: float


def compare_runs(
    scores: Mapping[str, Float[np.ndarray, " items"]],
    *,
    rng: np.random.Generator,
    clusters: Shaped[np.ndarray, " items"] | None = None,
    level: float = 0.95,
) -> list[Comparison]:
    """The mean difference of every pair of runs, corrected for the number of pairs.

    Holm's steps reject at least what the intervals reject, so a pair may be significant while its interval holds zero.

    Args:
        scores: By run, one value per item, items in the same order.
        rng: Source of randomness.
        clusters: Label of each item's cluster, usually its prompt. Shape (items,).
        level: Joint coverage of all intervals, in (0, 1).

    Raises:
        ValueError: If there are fewer than two runs or their numbers of items differ, or as `bca_estimate` does.
    """
    if len(scores) < 2 or len({len(values) for values in scores.values()}) > 1:
        found = {name: len(values) for name, values in scores.items()}
        raise ValueError(f"scores: two runs or more with as many items each, got {found}")
    pairs = list(combinations(scores, 2))
    differences = np.stack([scores[first] - scores[second] for first, second in pairs], axis=1)
    p_values = sign_flip_p_values(differences, rng=rng, clusters=clusters)
    each = 1 - (1 - level) / len(pairs)
    return [
        Comparison(
            first,
            second,
            paired_difference(scores[first], scores[second], rng=rng, clusters=clusters, level=each),
            float(p_value),
            float(p_holm),
        )
        for (first, second), p_value, p_holm in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def holm(p_values: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """P-values that may be compared with a level as if each test were the only one. Order as given.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Raises:
        ValueError: If a p-value is outside [0, 1].
    """
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p_values must be in [0, 1], got {p_values.tolist()}")
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def sign_flip_p_values(
    differences: Float[np.ndarray, "items comparisons"],
    *,
    rng: np.random.Generator,
    clusters: Shaped[np.ndarray, " items"] | None = None,
    resamples: int = RESAMPLES,
) -> Float[np.ndarray, " comparisons"]:
    """Two-sided p-values of paired differences: how often a random choice of signs gives a mean as far from zero.

    All items of a cluster change sign together, and all comparisons share the signs. Exact if exchanging the two runs
    of a cluster changes nothing in law; the observed signs count as one of the choices, so that no p-value is zero.

    Source: Fisher 1935, "The design of experiments", section 21; Phipson and Smyth 2010 (arXiv:1603.05766) for the one.

    Args:
        differences: Shape (items, comparisons).
        rng: Source of randomness.
        clusters: Label of each item's cluster. Shape (items,).
        resamples: Random choices of signs.

    Raises:
        ValueError: If there are fewer than two clusters, or a difference is not finite.
    """
    sums = np.stack([cluster_sums(column, clusters)[0] for column in differences.T], axis=1)
    check_items(differences.ravel(), len(sums), 0.95)
    observed = np.abs(sums.sum(axis=0))
    rounding = 1e-12 * np.abs(sums).sum(axis=0)
    as_far = np.zeros(sums.shape[1])
    rows = max(1, DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, rows):
        flips = rng.integers(2, size=(min(rows, resamples - start), len(sums)), dtype=np.int8)
        means = np.abs((2.0 * flips - 1.0) @ sums)
        as_far += (means >= observed - rounding).sum(axis=0)
    return (1 + as_far) / (1 + resamples)


def prompt_labels(prompts: Sequence[Any]) -> Shaped[np.ndarray, " items"]:
    """Each prompt as a text, by which items of one prompt are known to belong together."""
    return np.array([json.dumps(prompt) for prompt in prompts])


def comparisons(
    name: str, scores: Mapping[str, Float[np.ndarray, " items"]], prompts: Sequence[Any]
) -> list[Comparison]:
    """Every pair of runs on one measure, corrected for how many pairs there are; items of one prompt belong together.

    Args:
        name: What was measured, for the message.
        scores: By run, one value per item.
        prompts: The prompt of each item.

    Raises:
        RunError: If all items have one prompt.
    """
    labels = prompt_labels(prompts)
    if len(set(labels.tolist())) < 2:
        raise RunError(f"{name}: comparing runs needs at least 2 different prompts, got {len(set(labels.tolist()))}")
    return compare_runs(scores, rng=rng_of_report(), clusters=labels)
