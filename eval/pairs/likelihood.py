"""Estimates the likelihood of held-out completions, per token."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from eval.statistics.intervals import Estimate, cluster_sums
from eval.statistics.names import REF
from eval.statistics.sides import COUNTS, sided_estimates

Rows = Float[np.ndarray, " rows"]


class CompletionScores(NamedTuple):
    """Summed log-probabilities (nats) of each completion, and its length in tokens; each of shape (rows,)."""

    policy: Rows
    ref: Rows
    tokens: Rows


def likelihood(
    name: str, scores: Mapping[str, CompletionScores], prompts: Shaped[np.ndarray, " rows"]
) -> dict[str, Estimate]:
    """`NAME/policy`, `NAME/ref` and `NAME/difference`: negative log-likelihood in nats per token; exp of it is a perplexity.

    All tokens count the same, so it is the ratio of two sums, as training logs it. Prompts are independent, tokens are not.

    Args:
        name: Of the quantity.
        scores: By policy, the one in question first; the reference is the same in all.
        prompts: Of the rows.
    """
    one = next(iter(scores.values()))
    values = {who: per_token(-each.policy, each.tokens, prompts) for who, each in scores.items()}
    return sided_estimates(name, values | {REF: per_token(-one.ref, one.tokens, prompts)}, bounds=COUNTS)


def per_token(sums: Rows, tokens: Rows, prompts: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, " prompts"]:
    """One number a prompt, whose mean is the ratio R of all sums to all tokens, and whose spread is that of R.

    R + (S - m R) / mean(m) of a prompt with the sum S over m tokens; linear in S, so that differences are of differences.

    Source: the linearised ratio estimator, Cochran 1977, "Sampling techniques", section 6.

    Args:
        sums: Of each row.
        tokens: Of each row, more than 0.
        prompts: Of each row. The result is in the order of `np.unique`.
    """
    total, counts = cluster_sums(sums, prompts)[0], cluster_sums(tokens, prompts)[0]
    ratio = total.sum() / counts.sum()
    return ratio + (total - counts * ratio) / counts.mean()
