"""Computes losses on single answers that are labelled desirable or not: one value for each row, unreduced."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .preference import Batch


def kto_loss(
    rewards: Batch,
    desirable: Bool[Tensor, " batch"],
    baseline: Float[Tensor, ""],
    *,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Batch:
    """Kahneman-Tversky Optimization: λ_D (1 - σ(r - z)) of a desirable answer, λ_U (1 - σ(z - r)) of another.

    z is the point that gains and losses are reckoned from; `kto_baseline` estimates it. At z = 0 the loss is the unpaired
    form of `apo_zero_loss`.

    Source: Ethayarajh et al. 2024 (arXiv:2402.01306), eq. 7.

    Args:
        rewards: β times the log-ratio of the answer, in nats. Shape (batch,).
        desirable: The label. Shape (batch,).
        baseline: z, β in it, without gradient; a scalar.
        desirable_weight: λ_D.
        undesirable_weight: λ_U.

    Raises:
        ValueError: If `baseline` requires a gradient.
    """
    if baseline.requires_grad:
        raise ValueError("baseline requires a gradient: compute it under torch.no_grad()")
    gain = desirable_weight * torch.sigmoid(baseline - rewards)
    return torch.where(desirable, gain, undesirable_weight * torch.sigmoid(rewards - baseline))


def kto_baseline(total: Float[Tensor, ""], rows: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """z: the mean reward of mismatched rows, prompts with another prompt's answer, and at least 0.

    It is a mean over answers of the data, and no KL divergence.

    Args:
        total: Sum of rewards over the mismatched rows of an optimizer step, of all processes, in nats.
        rows: How many there are.
    """
    return (total / rows.clamp(min=1)).clamp(min=0)


def bco_loss(rewards: Batch, desirable: Bool[Tensor, " batch"], shift: Float[Tensor, ""]) -> Batch:
    """Binary Classifier Optimization: -log σ(r - δ) of a desirable answer, -log σ(δ - r) of another.

    Cross-entropy of a classifier whose logit is the reward less δ. With δ the mean reward, and labels drawn with
    probability σ(R), R of mean 0, it rests at π_ref e^(R/β)/Z. At δ = 0 both answers of a pair are `bco_pair_loss`.

    Source: Jung et al. 2024 (arXiv:2404.04656), the classifier with the shift of rewards. The paper's other part, the
    weight of an undesirable row by the density ratio of prompts, is a factor of the loss (`scoring.density_ratio`).

    Args:
        rewards: β times the log-ratio of the answer, in nats. Shape (batch,).
        desirable: The label. Shape (batch,).
        shift: δ, β in it, without gradient; a scalar.

    Raises:
        ValueError: If `shift` requires a gradient.
    """
    if shift.requires_grad:
        raise ValueError("shift requires a gradient: compute it under torch.no_grad()")
    return -F.logsigmoid(torch.where(desirable, rewards - shift, shift - rewards))


def class_weights(desirable: int, undesirable: int) -> tuple[float, float]:
    """Weights of the two labels under which both classes weigh the same in all, the larger class keeping 1.

    KTO asks for λ_D n_D / (λ_U n_U) in [1, 4/3]; this gives 1.

    Args:
        desirable: Rows with that label.
        undesirable: The others.

    Raises:
        ValueError: If there is no row of either kind.
    """
    if desirable < 1 or undesirable < 1:
        raise ValueError(f"rows of both labels are needed, got {desirable} desirable and {undesirable} undesirable")
    larger = max(desirable, undesirable)
    return larger / desirable, larger / undesirable
