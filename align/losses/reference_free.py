"""Computes losses on preference pairs that need no reference; `nll_loss` added makes ORPO of the odds ratio."""

import torch
import torch.nn.functional as F

from .preference import Batch, Pair, log1m_exp

CEILING = -1e-9
"""A mean log-probability is held below this in log-odds: at 0 they are infinite, and their slope with them."""


def simpo_loss(rewards: Pair, *, gamma: float) -> Batch:
    """Simple Preference Optimization: -log σ(r_chosen - r_rejected - γ), with r = β · mean log π and no reference.

    Source: Meng et al. 2024 (arXiv:2405.14734), eq. 6.

    Args:
        rewards: β times the length-mean log-probability, in nats. Each side has shape (batch,).
        gamma: Target margin in nats (of the rewards, so β is in it).
    """
    return -F.logsigmoid(rewards.chosen - rewards.rejected - gamma)


def log_odds(mean_logps: Batch) -> Batch:
    """Log (p/(1 - p)) for p = exp of the mean log-probability of a token. Finite, and with a slope, up to p = 1.

    Above -10⁻⁹ nats it goes on along its tangent.

    Args:
        mean_logps: Mean over the answer's tokens, in nats, at most 0. Shape (batch,).
    """
    held = mean_logps.clamp(max=CEILING)
    return held - log1m_exp(held) + (mean_logps - held) / -torch.expm1(held.detach())


def odds_ratio_loss(mean_logps: Pair, *, beta: float) -> Batch:
    """ORPO's preference term: -β log σ(log odds of the chosen - log odds of the rejected), odds = p/(1 - p).

    ORPO is the sum with `nll_loss`; there is no reference. β weighs the term, as in TRL, and is the paper's λ.

    Source: Hong et al. 2024 (arXiv:2403.07691), the odds-ratio loss.

    Args:
        mean_logps: Mean log-probability of the answer's tokens, in nats. Each side has shape (batch,).
        beta: Weight of the term; 0.1 in TRL and in the authors' Mistral runs.

    Raises:
        ValueError: If `beta` is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return -beta * F.logsigmoid(log_odds(mean_logps.chosen) - log_odds(mean_logps.rejected))
