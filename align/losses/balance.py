"""Computes targets of GFlowNets: answers in proportion to a reward, or in the order of several rewards."""

from jaxtyping import Float
from torch import Tensor

from .pairwise import Group


def trajectory_balance_loss(rewards: Group, scores: Group, weights: Group | None = None) -> Float[Tensor, " prompts"]:
    """VarGrad form of trajectory balance on k samples of each prompt: the variance of m = β log(π/π_ref) - R.

    With R = β·log of a positive reward, 0 only where π = π_ref · reward / Z. The mean of m stands for -β log Z, and no
    constant of a prompt counts; samples of several prompts, or of several preferences, have each their own Z and must not
    share a row. Under uniform weights it is (k - 1)/k² times `copg_group_loss`, and for a pair a quarter of `copg_loss`:
    the same gradient but for the step. It differs where weights are not uniform (samples of a replay buffer weighed by
    another law), and where k is not the same for all prompts, which weigh k²/(k - 1) there and 1 here.

    Source: Malkin et al. 2022, "Trajectory balance" (arXiv:2201.13259); in this form Zhang et al. 2023, "Robust scheduling
    with GFlowNets" (arXiv:2302.05446), after Richter et al. 2020, "VarGrad" (arXiv:2010.10436).

    Args:
        rewards: Implicit rewards β log(π/π_ref) in nats, shape (prompts, k).
        scores: R, likewise.
        weights: The law of the samples, not negative, of sum 1 over each row; uniform by default.

    Returns:
        Losses, shape (prompts,), in nats².

    Raises:
        ValueError: If there are fewer than two samples of a prompt, which always agree.
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"at least two samples of each prompt are needed, got {rewards.shape[1]}")
    m = rewards - scores
    if weights is None:
        return ((m - m.mean(dim=-1, keepdim=True)) ** 2).mean(dim=-1)
    mean = (weights * m).sum(dim=-1, keepdim=True)
    return (weights * (m - mean) ** 2).sum(dim=-1)


def order_preserving_loss(rewards: Group, target: Group) -> Float[Tensor, " prompts"]:
    """Cross-entropy of a target to the softmax of R = β log(π/π_ref) over k answers to each prompt: -Σ y log softmax(R).

    The target is uniform on the answers that no other of the prompt beats in all rewards (`align.weighting.ranks.undominated`),
    so no scale of a reward counts. Of two answers it is online DPO where P(y ≻ y') is 1 if y dominates, 0 if it is dominated and
    one half else. Where answers dominate others it has no minimum: their R falls without end, so stop, smooth or decay. Where none
    does it draws R together. Orders of several samples can disagree: of (1, 0), (.6, .6), (0, 1) and (.5, .5) all pairs
    together put the second above the first and third, which no answer dominates.

    The label is the paper's for any k. The method `order_preserving` trains on k = 2, since its trainer samples two answers a prompt.

    Deviation: the paper's R is log Z π alone; here it is held against the reference. Its replay of earlier fronts is not here.

    Source: Chen and Mauch 2023, "Order-preserving GFlowNets" (arXiv:2310.00386), the cross-entropy to the Pareto label.

    Args:
        rewards: Implicit rewards β log(π/π_ref) in nats, shape (prompts, k).
        target: Not negative, of sum 1 over each row, shape (prompts, k).

    Returns:
        Losses, shape (prompts,), in nats.

    Raises:
        ValueError: If there are fewer than two answers to a prompt, which have no order.
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"at least two answers to each prompt are needed, got {rewards.shape[1]}")
    return -(target * rewards.log_softmax(dim=-1)).sum(dim=-1)
