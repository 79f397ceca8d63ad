"""Holds a judge against people: how often it prefers what they preferred, beside how often they agree with each other."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Shaped

from .intervals import Estimate, mean_estimate, win_scores
from .shares import share_estimate

Votes = Sequence[Sequence[int]]


def agreement_estimates(
    preferred: Float[np.ndarray, " pairs"], clusters: Shaped[np.ndarray, " pairs"], votes: Votes | None = None
) -> dict[str, Estimate]:
    """Accuracy and Cohen's kappa of a judge, and with single votes its agreement with a person and theirs with each other.

    Which answer of a pair is called the first is arbitrary, so both sides are as frequent for judge and people, chance
    agrees in one half of the pairs, and kappa is twice the accuracy less one. A verdict that is a tie counts one half.

    With votes: `with_person` is the mean over a pair's people of whether judge and person said the same, ties included;
    `between_people` the same of two people; `above_people` their difference, pair by pair. All are over prompts.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales"; the comparison of agreements, Zheng et al. 2023
    (arXiv:2306.05685), section 4.2.

    Args:
        preferred: Probability that the judge prefers the answer that people preferred. Shape (pairs,).
        clusters: The prompt of each pair.
        votes: For each pair the people's votes: 1 for the answer that most preferred, -1 for the other, 0 for a tie.

    Raises:
        ValueError: If a probability is outside [0, 1], or there are fewer than two prompts.
    """
    if not ((preferred >= 0) & (preferred <= 1)).all():
        raise ValueError("preferred: must be probabilities in [0, 1]")
    if len(np.unique(clusters)) < 2:
        raise ValueError("an interval needs pairs of at least 2 prompts")
    accuracy = share_estimate(win_scores(preferred, np.full(len(preferred), 0.5)), clusters)
    kappa = Estimate(2 * accuracy.value - 1, 2 * accuracy.low - 1, 2 * accuracy.high - 1, accuracy.n)
    found = {"accuracy": accuracy, "kappa": kappa}
    several = [] if votes is None else [i for i, row in enumerate(votes) if len(row) > 1]
    if votes is None or len(np.unique(clusters[several])) < 2:
        return found
    verdicts = np.sign(preferred - 0.5)
    judge = np.array([np.mean([vote == verdicts[i] for vote in votes[i]]) for i in several])
    people = np.array([np.mean([one == other for one, other in combinations(votes[i], 2)]) for i in several])
    labels = clusters[several]
    return found | {
        "with_person": mean_estimate(judge, labels, bounds=(0.0, 1.0)),
        "between_people": mean_estimate(people, labels, bounds=(0.0, 1.0)),
        "above_people": mean_estimate(judge - people, labels, bounds=(-1.0, 1.0)),
    }
