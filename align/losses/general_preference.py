"""Scores which of two answers is preferred, from an embedding of each; no reduction, no state.

An answer has an embedding v(y|x) of d dimensions. For even d the score of one answer over another is skew-symmetric,
so preferences may be cyclic; d = 1 is Bradley-Terry, where the score is a difference of rewards.

Source: Zhang et al. 2024, General Preference Modeling (arXiv:2410.02197). Embeddings are used as they are, not brought
to unit length, and our trainer has no trainable gate of the prompt: its λ_k are 1. The sign of a block is a convention: it can be exchanged by swapping two coordinates of all embeddings.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def general_preference_scores(
    first: Float[Tensor, "*#pairs d"], second: Float[Tensor, "*#pairs d"], *, scales: Tensor | None = None
) -> Float[Tensor, "..."]:
    """Score s(first > second) = Σ_k λ_k (a_2k b_2k+1 - a_2k+1 b_2k) over 2x2 blocks; a - b for d = 1.

    Swapping the two changes the sign, to the bit.

    Args:
        first: Embeddings of the answers asked about. Shape (..., d), d = 1 or even.
        second: Embeddings of the answers they are compared with. Shape (..., d); the leading shapes broadcast.
        scales: λ_k(x), one for each block, not negative. Shape (..., d / 2). By default 1. Not for d = 1.

    Returns:
        Scores, shape (...): logits of a preference once divided by τ.

    Raises:
        ValueError: If d is odd and not 1, or `scales` are given for d = 1, or do not have d / 2 values.

    Example:
        >>> import torch
        >>> angles = torch.tensor([0.0, 120.0, 240.0]).deg2rad()
        >>> stone, paper, scissors = torch.stack([angles.sin(), angles.cos()], dim=1)
        >>> [round(float(general_preference_scores(a, b)), 3) for a, b in ((paper, stone), (scissors, paper), (stone, scissors))]
        [0.866, 0.866, 0.866]
    """
    d = first.size(-1)
    check_dimension(d)
    if d == 1:
        if scales is not None:
            raise ValueError("scales: there are no blocks to scale at d = 1; leave them out")
        return (first - second).squeeze(-1)
    blocks = first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]
    if scales is None:
        return blocks.sum(dim=-1)
    if scales.size(-1) != d // 2:
        raise ValueError(f"scales: must be one for each of the {d // 2} blocks, got {scales.size(-1)}")
    return (scales * blocks).sum(dim=-1)


def check_dimension(d: int) -> None:
    """Refuse a dimension without a score.

    Raises:
        ValueError: If it is neither 1 nor even and positive.
    """
    if d != 1 and (d < 2 or d % 2):
        raise ValueError(f"dimension: must be 1 (Bradley-Terry) or even, got {d}")


def general_preference_loss(
    scores: Float[Tensor, "*pairs"], *, tau: float = 1.0, margin: Float[Tensor, "*pairs"] | float = 0.0
) -> Float[Tensor, "*pairs"]:
    """Negative log-likelihood of the preference: -log σ((s(chosen > rejected) - margin) / τ).

    Source: arXiv:2410.02197; with d = 1, τ = 1 and no margin it is the loss of a Bradley-Terry reward model.

    Args:
        scores: From `general_preference_scores(chosen, rejected)`. Shape (batch,).
        tau: Temperature, positive. The paper uses 0.1.
        margin: By how much the chosen answer should be ahead, in units of the score. Shape (batch,), or one number.

    Returns:
        Losses in nats, shape (batch,).

    Raises:
        ValueError: If `tau` is not positive.
    """
    _check_tau(tau)
    return -F.logsigmoid((scores - margin) / tau)


def preference_probability(scores: Float[Tensor, "*pairs"], *, tau: float = 1.0) -> Float[Tensor, "*pairs"]:
    """P(first > second) = σ(s / τ), one half where the scores tie.

    Raises:
        ValueError: If `tau` is not positive.
    """
    _check_tau(tau)
    return F.sigmoid(scores / tau)


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}")
