"""Computes losses on preference pairs: no config objects, no state, no logging, no reduction.

Data flow, left to right, is also the order of the functions below::

    token log-probs -> sequence_logps -> Pair -> log_ratios -> implicit_rewards -> *_loss -> (batch,) losses

Units: log-probabilities and rewards are in nats; `beta`, `eta` and `alpha` are dimensionless.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .divergences import Divergence

Batch = Float[Tensor, " batch"]


class Pair(NamedTuple):
    """One value per preference pair for each side: `chosen` and `rejected`, both of shape (batch,)."""

    chosen: Batch
    rejected: Batch


class PreferenceLoss(NamedTuple):
    """What one call of a preference loss knows, so that the logs cannot disagree with the training.

    `losses` (batch,) is differentiable. `rewards` are the implicit rewards the loss used, β included, in nats.
    `components` are the addends of `losses`, each (batch,), by name; `diagnostics` are further (batch,) values.
    """

    losses: Batch
    rewards: Pair
    components: dict[str, Batch]
    diagnostics: dict[str, Batch]


def sequence_logps(token_logps: Float[Tensor, "batch time"], completion_mask: Bool[Tensor, "batch time"]) -> Batch:
    """Sum per-token log-probabilities over the completion: log π(y|x), in nats.

    A row with no completion token would silently have log-probability 0, so it is refused.

    Args:
        token_logps: log π(y_t | x, y_<t). Shape (batch, time). Values outside the mask are ignored, NaN included.
        completion_mask: True where the token belongs to y. Shape (batch, time).

    Raises:
        ValueError: If a row has no completion token.
    """
    empty = (~completion_mask.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"rows {empty} have no completion token; check truncation (max_length)")
    return token_logps.masked_fill(~completion_mask, 0.0).sum(dim=1)


def desensitized_logps(
    token_logps: Float[Tensor, "rows time"], completion_mask: Bool[Tensor, "rows time"], *, alpha: float
) -> Float[Tensor, " rows"]:
    """Log-probabilities whose tokens beyond the shorter answer's length count α times: Σ_{t≤m} l_t + α Σ_{t>m} l_t.

    m is the length of the shorter of a pair's answers, its end included. LD-DPO is a loss of the difference of such sums
    for policy and reference. At α = 1, or where both answers are as long, they are `sequence_logps`.

    Source: Liu et al. 2024 (arXiv:2409.06411), LD-DPO; TRL's `ld_alpha`.

    Args:
        token_logps: log π(y_t | x, y_<t) in nats, all chosen answers before all rejected ones. Shape (2 · pairs, time).
            Values outside the mask are ignored, NaN included.
        completion_mask: True where the token belongs to the answer. Likewise.
        alpha: In [0, 1]; 0 cuts the longer answer.

    Raises:
        ValueError: If `alpha` is outside [0, 1], or a row has no completion token.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    shared = torch.minimum(*completion_mask.sum(dim=1).chunk(2)).repeat(2)
    beyond = completion_mask.cumsum(dim=1) > shared[:, None]
    return sequence_logps(torch.where(beyond, alpha * token_logps, token_logps), completion_mask)


def log1m_exp(logps: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(1 - e^l) for l < 0, without cancellation on either side of -log 2, and with a finite slope."""
    near = logps > -math.log(2)
    below, above = torch.where(near, -1.0, logps), torch.where(near, logps, -1.0)
    return torch.where(near, torch.log(-torch.expm1(above)), torch.log1p(-torch.exp(below)))


def log_ratios(policy: Pair, ref: Pair) -> Pair:
    """Log π(y|x) - log π_ref(y|x) for each side, in nats, shape (batch,).

    Raises:
        ValueError: If `ref` requires a gradient.
    """
    if ref.chosen.requires_grad or ref.rejected.requires_grad:
        raise ValueError("ref requires a gradient: compute it under torch.no_grad()")
    return Pair(policy.chosen - ref.chosen, policy.rejected - ref.rejected)


def implicit_rewards(log_ratio: Pair, *, beta: float, f_prime: Callable[[Batch], Batch] | None = None) -> Pair:
    """Implicit rewards β f'(u), u = π/π_ref, up to a term that depends on the prompt only.

    Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 5; Wang et al. 2023 (arXiv:2309.16240), for general f.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        beta: Strength of the pull towards the reference. Larger stays closer.
        f_prime: f' as a function of the log-ratio; by default that of the reverse KL, the log-ratio itself.

    Returns:
        Rewards in nats. Each side has shape (batch,).

    Raises:
        ValueError: If `beta` is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    if f_prime is None:
        return Pair(beta * log_ratio.chosen, beta * log_ratio.rejected)
    return Pair(beta * f_prime(log_ratio.chosen), beta * f_prime(log_ratio.rejected))


def dpo_loss(rewards: Pair, *, label_smoothing: float = 0.0) -> Batch:
    """Direct preference optimization: -log σ(r_chosen - r_rejected), one value per pair.

    Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 7. With `label_smoothing` ε it is conservative DPO (Mitchell
    2023, https://ericmitchell.ai/cdpo.pdf, eq. 3): the loss under labels flipped with probability ε.

    Args:
        rewards: Implicit rewards in nats, from `implicit_rewards`. Each side has shape (batch,).
        label_smoothing: Assumed probability that a label is flipped. In [0, 0.5).

    Returns:
        Losses in nats, shape (batch,). Not reduced: the trainer takes the mean.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 0.5).

    Example:
        >>> import torch
        >>> rewards = Pair(chosen=torch.tensor([1.0]), rejected=torch.tensor([1.0]))
        >>> dpo_loss(rewards)  # no preference yet: log 2
        tensor([0.6931])
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}")
    margin = rewards.chosen - rewards.rejected
    if label_smoothing == 0.0:
        return -F.logsigmoid(margin)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def rpo_loss(
    rewards: Pair,
    chosen_logps: Batch,
    chosen_tokens: Batch,
    *,
    beta: float,
    eta: float,
    sft_reduction: Literal["sum", "sequence_mean"] = "sum",
    scale_by_beta: bool = True,
) -> PreferenceLoss:
    """Regularized preference optimization: DPO plus the negative log-likelihood of the chosen answer.

    -log σ(r_chosen - r_rejected) + η β · (-log π(y_chosen|x)), the log-likelihood summed over the answer: the paper's
    objective, with the chosen answers as its baseline distribution. With `sft_reduction="sequence_mean"` and
    `scale_by_beta=False` it is the authors' second variant, η times the mean over the answer's own tokens. Neither is
    NVIDIA's reward-aware RPO nor Reverse Preference Optimization.

    Source: Liu et al. 2024 (arXiv:2405.16436), eq. 4.8; the second variant is in the authors' OpenRLHF code.

    Args:
        rewards: Implicit rewards of the reverse KL in nats (the derivation holds for no other divergence).
        chosen_logps: log π(y_chosen|x) in nats, summed. Shape (batch,). Carries the gradient.
        chosen_tokens: Tokens of the chosen answer. Shape (batch,).
        beta: The β that `rewards` include.
        eta: Weight of the likelihood term. 0 gives DPO exactly.
        sft_reduction: Sum over the answer's tokens, or mean over them; never a mean over the batch's tokens.
        scale_by_beta: Whether the weight is η β (the paper) or η.

    Raises:
        ValueError: If `eta` is negative or `sft_reduction` unknown.
    """
    if eta < 0:
        raise ValueError(f"eta must not be negative, got {eta}")
    if sft_reduction not in ("sum", "sequence_mean"):
        raise ValueError(f"sft_reduction must be 'sum' or 'sequence_mean', got {sft_reduction!r}")
    preference = dpo_loss(rewards)
    nll = -chosen_logps if sft_reduction == "sum" else -chosen_logps / chosen_tokens
    weight = eta * beta if scale_by_beta else eta
    sft = weight * nll
    losses = preference + sft if eta > 0 else preference
    components = {"preference": preference, "sft": sft}
    pull = F.sigmoid(rewards.rejected - rewards.chosen)
    return PreferenceLoss(losses, rewards, components, {"rpo/sft_dominates": (pull < eta).float()})


def f_dpo_loss(
    log_ratio: Pair, *, beta: float, f: Divergence, beta_scaling: Literal["raw", "curvature"]
) -> PreferenceLoss:
    """f-DPO: -log σ(β f'(u_chosen) - β f'(u_rejected)), u = π/π_ref.

    Source: Wang et al. 2023 (arXiv:2309.16240); β f'(u) takes the place of β log u in eq. 7 of DPO.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        beta: Strength of the pull towards the reference.
        f: The divergence, from `divergence`.
        beta_scaling: "raw" is the paper's. "curvature" divides β by f''(1), so that equal β means equally strong
            regularisation near the reference, whatever the divergence.

    Raises:
        ValueError: If `beta` is not positive or `beta_scaling` unknown.
    """
    if beta_scaling not in ("raw", "curvature"):
        raise ValueError(f"beta_scaling must be 'raw' or 'curvature', got {beta_scaling!r}")
    strength = beta / f.curvature if beta_scaling == "curvature" else beta
    rewards = implicit_rewards(log_ratio, beta=strength, f_prime=f)
    losses = dpo_loss(rewards)
    tail = (f.in_tail(log_ratio.chosen) + f.in_tail(log_ratio.rejected)) / 2
    return PreferenceLoss(losses, rewards, {"preference": losses}, {"fdpo/tail_share": tail})


def tdpo_loss(log_ratio: Pair, kl: Pair, *, beta: float, kl_weight: float, hold_chosen: bool) -> PreferenceLoss:
    """Token-level DPO: -log σ(β (D + α (S_w - S_l))), S the answer's sum of KL(π_ref ‖ π) over its tokens.

    TDPO1 has α = 1. TDPO2 has α = 0.5 in the authors' runs, and S_w without gradient: so that only the
    rejected answer's KL is moved. At α = 0 it is DPO.

    Source: Zeng et al. 2024 (arXiv:2404.11999), as in the authors' code.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        kl: S of each side, in nats: the KL of the next token, reference first, over the whole vocabulary, summed over the
            answer's tokens. It carries a gradient.
        beta: Strength of the pull towards the reference.
        kl_weight: α.
        hold_chosen: Whether S_w has no gradient, as in TDPO2.

    Returns:
        `rewards` are β (log π/π_ref + S), as the authors log them; under TDPO2 the loss is no function of these alone.
    """
    own = kl.chosen.detach() if hold_chosen else kl.chosen
    chosen = log_ratio.chosen + kl_weight * own
    rejected = log_ratio.rejected + kl_weight * kl.rejected
    losses = dpo_loss(Pair(beta * chosen, beta * rejected))
    rewards = Pair(beta * (log_ratio.chosen + kl.chosen), beta * (log_ratio.rejected + kl.rejected))
    return PreferenceLoss(
        losses, rewards, {"preference": losses}, {"kl/chosen": kl.chosen.detach(), "kl/rejected": kl.rejected.detach()}
    )
