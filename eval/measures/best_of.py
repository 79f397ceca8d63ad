"""Measures what is gained by drawing k answers and keeping the one that a judge likes best."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from eval.statistics.intervals import UNBOUNDED, Estimate, mean_estimate

Samples = Float[np.ndarray, "prompts samples"]


def best_of_k(
    gold: Samples, judge: Samples, ks: Sequence[int], *, bounds: tuple[float, float] = UNBOUNDED
) -> dict[int, Estimate]:
    """Mean gold score of the answer that the judge scores highest among k, for each k.

    Every set of k of the n samples of a prompt counts, not one draw of it: the sample with m judged below it is the
    best of C(m, k-1) of the C(n, k) sets. Answers with equal judge scores share what they get.

    With the gold score as the judge this is the ceiling; with a weaker judge the curve may turn down (over-optimisation)
    and the k of its top is as far as that judge can be trusted. For gold = judge = -(y - t)^2 with normal y the error
    falls as 1/k^2 (a misspecified judge has a best k instead).

    Source: the law of the error, "Demystifying LLM-as-a-judge: analytically tractable model for inference-time
    scaling"; the average over sets, Chen et al. 2021 (arXiv:2107.03374), equation 1. Deviation from the former: the
    highest score is kept for certain (temperature 0).

    Args:
        gold: True scores. Shape (prompts, samples).
        judge: Scores by which the answer is chosen. Shape (prompts, samples).
        ks: Numbers of answers drawn, each from 1 to the number of samples.
        bounds: The least and the greatest that a true score can be.

    Raises:
        ValueError: If shapes differ, a k is out of range, or as `mean_estimate` does.
    """
    n = gold.shape[1]
    if gold.shape != judge.shape or not np.isfinite(judge).all():
        raise ValueError(f"judge: one finite score for each of {gold.shape} samples, got shape {judge.shape}")
    if not ks or min(ks) < 1 or max(ks) > n:
        raise ValueError(f"ks: must be from 1 to the number of samples, {n}, got {list(ks)}")
    gold = _ties_averaged(gold, judge)
    return {k: mean_estimate(gold @ _weights(n, k), bounds=bounds) for k in ks}


def best_of_k_kl(k: int) -> float:
    """KL(best-of-k ‖ policy) in nats if no two answers are equal; an upper bound otherwise: ln k - (k - 1) / k.

    Source: Stiennon et al. 2020 (arXiv:2009.01325), appendix G.3; the bound, Beirami et al. 2024 (arXiv:2401.01879).
    """
    return float(np.log(k)) - (k - 1) / k


def _ties_averaged(gold: Samples, judge: Samples) -> Samples:
    """Gold scores in the judge's order, lowest first; within equal judge scores each is replaced by their mean."""
    order = np.argsort(judge, axis=1, kind="stable")
    gold, judge = (np.take_along_axis(scores, order, axis=1) for scores in (gold, judge))
    new = np.concatenate([np.ones((len(judge), 1), dtype=bool), judge[:, 1:] > judge[:, :-1]], axis=1)
    group = np.cumsum(new.ravel()) - 1
    means = np.bincount(group, weights=gold.ravel()) / np.bincount(group)
    return means[group].reshape(gold.shape)


def _weights(n: int, k: int) -> Float[np.ndarray, " n"]:
    """Share of the sets of k of n whose best is the sample of rank m = 0 ... n - 1: C(m, k-1) / C(n, k)."""
    weights = np.zeros(n)
    weights[n - 1] = k / n
    for m in range(n - 2, k - 2, -1):  # C(m, k-1) / C(m+1, k-1) = (m - k + 2) / (m + 1)
        weights[m] = weights[m + 1] * (m - k + 2) / (m + 1)
    return weights


def best_of_curves(
    gold: Mapping[str, np.ndarray],
    judge: Mapping[str, np.ndarray],
    name: str,
    bounds: tuple[float, float] = UNBOUNDED,
) -> dict[str, dict[int, Estimate]]:
    """Gold reward of the answer that a judge likes best among k, for k = 1, 2, 4, ... and all samples.

    Args:
        gold: By policy or "ref", shape (prompts, samples).
        judge: Likewise, what the answers are chosen by.
        name: Of the judge.
        bounds: The least and the greatest that a gold reward can be.
    """
    samples = next(iter(gold.values())).shape[1]
    ks = sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples})
    return {f"{name}: {who}": best_of_k(gold[who], judge[who], ks, bounds=bounds) for who in gold}
