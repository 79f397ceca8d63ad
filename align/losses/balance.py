"""Computes trajectory balance, by which a policy samples in proportion to a reward instead of maximising it."""

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
