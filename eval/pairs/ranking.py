"""Ranks the answers of pairs in three ways, and says what became of the chosen answers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from eval.statistics.intervals import Estimate, mean_estimate, win_scores
from eval.statistics.shares import share_difference, share_estimate

Values = Float[np.ndarray, " pairs"]
Labels = Shaped[np.ndarray, " pairs"] | None
"""The prompt of each pair; without labels every pair has its own."""


class PairScores(NamedTuple):
    """Summed log-probabilities (nats) and lengths (tokens) of both answers of every pair; each of shape (pairs,)."""

    chosen: Values
    rejected: Values
    ref_chosen: Values
    ref_rejected: Values
    chosen_tokens: Values
    rejected_tokens: Values


def correct(margin: Values) -> Values:
    """1 for a positive margin, 0 for a negative one, one half for a tie. Shape (pairs,)."""
    return win_scores(margin, np.zeros_like(margin))


def rankings(scores: PairScores) -> dict[str, Values]:
    """Per pair, whether each ranking puts the chosen answer first (ties one half).

    `logp`: by log π(y|x); `mean_logp`: by log π(y|x) / |y|; `implicit_reward`: by log π(y|x) - log π_ref(y|x),
    whose order is that of any increasing f' too; `longer_wins`: by length alone, the bar to clear.
    """
    return {
        "logp": correct(scores.chosen - scores.rejected),
        "mean_logp": correct(scores.chosen / scores.chosen_tokens - scores.rejected / scores.rejected_tokens),
        "implicit_reward": correct((scores.chosen - scores.ref_chosen) - (scores.rejected - scores.ref_rejected)),
        "longer_wins": correct(scores.chosen_tokens - scores.rejected_tokens),
    }


def ranking_estimates(scores: PairScores, *, prompts: Labels = None) -> dict[str, Estimate]:
    """Ranking accuracies of policy and reference, and the mean log-ratios of both answers in nats.

    Source: implicit rewards, Rafailov et al. 2023 (arXiv:2305.18290); the three rankings side by side, Chen et al. 2024
    (arXiv:2405.19534).

    Args:
        scores: Of the pairs.
        prompts: Of the pairs. Pairs of one prompt are not independent.

    Raises:
        ValueError: If there are fewer than two prompts.
    """
    before = scores._replace(chosen=scores.ref_chosen, rejected=scores.ref_rejected)
    accuracies = {f"ranking_accuracy/{name}": row for name, row in rankings(scores).items()}
    was = rankings(before)
    accuracies |= {f"ref_ranking_accuracy/{name}": was[name] for name in ("logp", "mean_logp")}
    means = {
        "log_ratio/chosen": scores.chosen - scores.ref_chosen,
        "log_ratio/rejected": scores.rejected - scores.ref_rejected,
        "logps/chosen": scores.chosen,
        "logps/rejected": scores.rejected,
    }
    above = rankings(scores)["implicit_reward"] - rankings(scores)["longer_wins"]
    means_and_shares = {"ranking_accuracy/above_longer_wins": share_difference(above, prompts)}
    return (
        means_and_shares
        | {name: share_estimate(row, prompts) for name, row in accuracies.items()}
        | {name: mean_estimate(row, prompts) for name, row in means.items()}
    )


def idealised_margin(scores: PairScores, shares: Values, *, beta: float) -> Values:
    """The margin log π*(y_w|x) - log π*(y_l|x) of the policy π* that minimises DPO's loss exactly; in nats, shape (pairs,).

    log π_ref(y_w|x) - log π_ref(y_l|x) + logit(share) / β: a reference that is wrong by more than the second term keeps
    even the best policy wrong.

    Source: Chen et al. 2024 (arXiv:2405.19534), on idealised ranking accuracy.

    Args:
        scores: Of the pairs.
        shares: Share of raters that preferred the chosen answer, in [0, 1]. Shape (pairs,).
        beta: DPO's β.
    """
    with np.errstate(divide="ignore"):  # all raters agree: an infinite margin
        logit = np.log(shares) - np.log1p(-shares)
    return scores.ref_chosen - scores.ref_rejected + logit / beta


def alignment_estimates(
    scores: PairScores, shares: Values, *, beta: float, prompts: Labels = None
) -> dict[str, Estimate]:
    """Ranking accuracy by log-probability that DPO could reach at best, and how far the policy is below it.

    Source: idealised ranking accuracy and alignment gap, Chen et al. 2024 (arXiv:2405.19534). Their accuracy counts a tie
    as right; here it counts one half, as everywhere.

    Args:
        scores: Of the pairs.
        shares: As `idealised_margin` has it.
        beta: DPO's β.
        prompts: As in `ranking_estimates`.
    """
    ideal = correct(idealised_margin(scores, shares, beta=beta))
    return {
        "ranking_accuracy/idealised": share_estimate(ideal, prompts),
        "alignment_gap": share_difference(ideal - rankings(scores)["logp"], prompts),
    }
