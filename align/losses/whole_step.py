"""Computes losses on preference pairs that depend on all pairs of an optimizer step, each pair's from what it reads of the others.

A trainer looks at the step first; what it finds is a number for each pair, without gradient, and the losses below take it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .preference import Batch, Pair, dpo_loss

LEAST_BETA = 1e-3
"""Dynamic β is held above this, as in the authors' code."""


def partners(values: Batch, others: Batch) -> Batch:
    """For each value, the one of `others` that has the same rank: the cheapest matching of two samples on the line.

    Args:
        values: Shape (pairs,), of a whole step. Equal values have ranks of their own.
        others: Likewise.
    """
    ranks = values.argsort(stable=True).argsort()
    return others.sort().values[ranks]


def partners_in(values: Batch, among: Float[Tensor, " set"], others: Float[Tensor, " set"]) -> Batch:
    """The same for some values of a set; equal values share the lowest of their ranks.

    Args:
        values: Shape (batch,), of which `among` has all.
        among: The whole set, in any order.
        others: Likewise, as many.
    """
    ranks = torch.searchsorted(among.sort().values, values.contiguous()).clamp(max=len(others) - 1)
    return others.sort().values[ranks]


def aot_loss(gap: Batch, partner: Batch, *, label_smoothing: float = 0.0) -> Batch:
    """Alignment via Optimal Transport, paired: DPO whose reference is of another pair, -log σ(gap - partner).

    The gap is β (log π(w) - log π(l)); its partner is the reference's gap that has the same rank within the step. Both
    laws of gaps are compared as a whole: the policy's is to be above the reference's everywhere.

    Source: Melnyk et al. 2024 (arXiv:2406.05882), paired, with the logistic loss; TRL's `aot`, which sorts a micro-batch.

    Args:
        gap: Of the policy, β in it, in nats. Shape (batch,).
        partner: Of the reference, from `partners`, β in it, without gradient.
        label_smoothing: As in `dpo_loss`.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 0.5).
    """
    return dpo_loss(Pair(gap, partner), label_smoothing=label_smoothing)


def aot_unpaired_loss(rewards: Pair, partner: Pair, *, label_smoothing: float = 0.0) -> Batch:
    """Alignment via Optimal Transport, unpaired: -log σ(r_(k) - r'_(k)), the k-th chosen reward against the k-th rejected.

    Pair i stands for two of these, half each: that of its chosen answer and that of its rejected one, whose other side
    is another pair's and has no gradient here. The gradient is not halved, so that the sum over a step has the value and
    the gradient of the sum over ranks.

    Source: Melnyk et al. 2024 (arXiv:2406.05882), unpaired, with the logistic loss; TRL's `aot_unpaired`, which sorts a
    micro-batch.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        partner: The rewards matched to the rejected answers (`chosen`) and to the chosen ones (`rejected`), from
            `partners`, without gradient.
        label_smoothing: As in `dpo_loss`.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 0.5).
    """
    won = dpo_loss(Pair(rewards.chosen, partner.rejected), label_smoothing=label_smoothing)
    lost = dpo_loss(Pair(partner.chosen, rewards.rejected), label_smoothing=label_smoothing)
    both = won + lost
    return both - both.detach() / 2


def dynamic_beta(gap: float, moving_mean: float, *, beta: float, margin_weight: float) -> float:
    """β-DPO's β of a step: β₀ (1 + a (D̄ - M)), at least 0.001; larger where the step's pairs are told apart better than usual.

    Source: Wu et al. 2024 (arXiv:2407.08639), batch-level β.

    Args:
        gap: D̄, the mean over the step of the difference of log-ratios, in nats.
        moving_mean: M, its moving mean, this step included.
        beta: β₀.
        margin_weight: a.
    """
    found = beta * (1 + margin_weight * (gap - moving_mean))
    return LEAST_BETA if found < LEAST_BETA else found  # what is not a number stays so, and its step is skipped


def filter_weights(
    gaps: Batch, moving_mean: float, moving_deviation: float, *, ratio: float, generator: torch.Generator
) -> Batch:
    """β-DPO's filter: which pairs of a step are learnt from, as weights of mean 1, or 0 for those left out.

    ⌊n (1 - ratio)⌋ of the n pairs, at least one, are drawn without replacement with probabilities in proportion to
    e^(-(D - M)²/(2 S²)): a pair that is told apart about as well as usual is kept. Chance belongs to a pair's rank, not to
    its place, so that neither the order of the pairs nor how they lie on processes matters.

    Source: Wu et al. 2024 (arXiv:2407.08639), whose weights at S = 0 are 0/0; here S is at least 10⁻⁶ nats.

    Args:
        gaps: D of all pairs of the step, in nats. Shape (pairs,).
        moving_mean: M, this step included.
        moving_deviation: S, likewise.
        ratio: The share to leave out, in [0, 1).
        generator: On the CPU.
    """
    kept = max(1, math.floor(len(gaps) * (1 - ratio) + 1e-9))
    ranks = gaps.argsort(stable=True).argsort()
    chance = torch.rand(len(gaps), generator=generator, dtype=torch.float64).clamp(1e-300, 1 - 1e-16)
    gumbel = -torch.log(-torch.log(chance)).to(gaps.device)[ranks]
    away = (gaps.double() - moving_mean) / max(moving_deviation, 1e-6)
    chosen = (gumbel - away * away / 2).argsort(descending=True, stable=True)[:kept]
    return torch.zeros_like(gaps).index_fill(0, chosen, len(gaps) / kept)


def beta_dpo_loss(log_ratio: Pair, beta: Batch) -> Batch:
    """DPO at the β of the step: -log σ(β D).

    Source: Wu et al. 2024 (arXiv:2407.08639). β has no gradient, as in the authors' code.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        beta: From `dynamic_beta`, shape (batch,), without gradient.

    Raises:
        ValueError: If `beta` requires a gradient.
    """
    if beta.requires_grad:
        raise ValueError("beta requires a gradient: compute it under torch.no_grad()")
    return dpo_loss(Pair(beta * log_ratio.chosen, beta * log_ratio.rejected))
