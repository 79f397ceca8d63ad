"""Computes the loss of SRPO: one model answers, and improves on an answer it is shown."""

from .preference import Batch, Pair, PreferenceLoss


def srpo_loss(plain: Pair, given_chosen: Pair, given_rejected: Pair, *, beta: float, alpha: float) -> PreferenceLoss:
    """(1 - α) L0 + α L+, with log-ratios ρ(y) = log π/π_ref (y|x) and d(b|a) = log π/π_ref (b|x, draft a).

    L0 = [1 - β (d(w|l) - d(l|w) + ρ(w) - ρ(l))]² makes the answer robust; L+ = [½ - β (d(w|l) - d(l|l))]² +
    [½ + β (d(l|w) - d(w|w))]² makes the revision better. In expectation over labels they hold two identities of the
    optimum: 2 P(b > a) - 1 = β (d(b|a) - d(a|b) + ρ(b) - ρ(a)) and P(b > a) - ½ = β (d(b|a) - d(a|a)).

    Source: Choi et al. 2024 (arXiv:2406.01660), the loss for hard labels. The identities are derived and tested here;
    which of the two terms the paper's α multiplies is not certain to us.

    Args:
        plain: ρ of the chosen (w) and the rejected (l) answer, in nats. Each side has shape (batch,).
        given_chosen: d(w|w) and d(l|w): both answers after the chosen one as a draft.
        given_rejected: d(w|l) and d(l|l).
        beta: Strength of the pull towards the reference.
        alpha: Weight of the revisions' part, in [0, 1].

    Returns:
        Losses, and as rewards β ρ in nats; shape (batch,).

    Raises:
        ValueError: If `beta` is not positive or `alpha` is outside [0, 1].
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    better_than_draft: Batch = given_rejected.chosen - given_rejected.rejected
    worse_than_draft: Batch = given_chosen.rejected - given_chosen.chosen
    whole = given_rejected.chosen - given_chosen.rejected + plain.chosen - plain.rejected
    robust = (1 - beta * whole) ** 2
    improving = (0.5 - beta * better_than_draft) ** 2 + (0.5 + beta * worse_than_draft) ** 2
    components = {"robust": (1 - alpha) * robust, "improving": alpha * improving}
    rewards = Pair(beta * plain.chosen, beta * plain.rejected)
    return PreferenceLoss(components["robust"] + components["improving"], rewards, components, {})
