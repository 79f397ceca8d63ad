"""Estimates how well a policy tells answers that are labelled desirable from others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from eval.statistics.intervals import Estimate, mean_estimate


class LabelScores(NamedTuple):
    """Summed log-probabilities (nats) of each completion, its length in tokens, and its label; each of shape (rows,)."""

    policy: Float[np.ndarray, " rows"]
    ref: Float[np.ndarray, " rows"]
    tokens: Float[np.ndarray, " rows"]
    desirable: Bool[np.ndarray, " rows"]


def label_estimates(scores: LabelScores, prompts: Shaped[np.ndarray, " rows"]) -> dict[str, Estimate]:
    """How a policy stands to the two labels.

    `log_ratio/desirable` and `log_ratio/undesirable` are means of log π - log π_ref, in nats. `told_apart/NAME` is how often an
    answer labelled desirable is above one that is not, by the log-ratio, or by the mean log-probability per token of the policy
    or the reference; ties count one half, and one half says nothing. A figure with fewer than two prompts, or without rows of
    both labels, is absent.

    Args:
        scores: Of one policy.
        prompts: Of the rows; rows of one prompt are not independent.
    """
    good, ratio = scores.desirable, scores.policy - scores.ref
    found = {
        f"log_ratio/{name}": mean_estimate(ratio[side], prompts[side])
        for name, side in (("desirable", good), ("undesirable", ~good))
        if len(np.unique(prompts[side])) > 1
    }
    if not good.any() or good.all() or len(np.unique(prompts)) < 2:
        return found
    scored = {"log_ratio": ratio, "policy": scores.policy / scores.tokens, "ref": scores.ref / scores.tokens}
    return found | {f"told_apart/{name}": _above(values, good, prompts) for name, values in scored.items()}


def _above(
    values: Float[np.ndarray, " rows"], good: Bool[np.ndarray, " rows"], prompts: Shaped[np.ndarray, " rows"]
) -> Estimate:
    """The share of pairs of a desirable and another row in which the former is above (area under the ROC curve).

    Its interval is that of one number a prompt: the share, plus what the prompt's rows move it by.

    Source: DeLong, DeLong and Clarke-Pearson 1988, for the components; Obuchowski 1997, Biometrics 53, for clusters.
    """
    ranked = np.sort(values[~good]), np.sort(values[good])
    below, above = (
        (np.searchsorted(ranked[side], values[rows], "left") + np.searchsorted(ranked[side], values[rows], "right"))
        / (2 * len(ranked[side]))
        for side, rows in ((0, good), (1, ~good))
    )
    share = float(below.mean())
    moved = np.zeros(len(values))
    moved[good] = (below - share) / good.sum()
    moved[~good] = (1 - above - share) / (~good).sum()
    _, cluster = np.unique(prompts, return_inverse=True)
    of_prompt = np.bincount(cluster, weights=moved)
    return mean_estimate(share + len(of_prompt) * of_prompt, bounds=(0.0, 1.0))
