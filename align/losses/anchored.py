"""Computes losses on preference pairs that hold each answer to the reference by itself, one function for each formula.

A term that depends on the prompt alone cancels in the other pairwise losses. Here it does not: these rewards are absolute.
`log_ratio` is log π - log π_ref, summed over the answer, and r = β times it; D is the difference, chosen minus rejected.
"""

import torch
import torch.nn.functional as F

from .preference import Batch, Pair


def nca_pair_loss(rewards: Pair) -> Batch:
    """Noise Contrastive Alignment of a pair: -log σ(r_w) - ½ log σ(-r_w) - ½ log σ(-r_l).

    The slope of the chosen reward is 0 at r_w = log 2, whatever the rejected one is: it cannot collapse.

    Source: Chen et al. 2024 (arXiv:2402.05369), NCA for a pair; TRL's `nca_pair`.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
    """
    kept = F.logsigmoid(-rewards.chosen) + F.logsigmoid(-rewards.rejected)
    return -F.logsigmoid(rewards.chosen) - 0.5 * kept


def bco_pair_loss(rewards: Pair) -> Batch:
    """Binary classification of both answers against a shift of 0: -log σ(r_w) - log σ(-r_l).

    Source: Jung et al. 2024 (arXiv:2404.04656), whose shift δ is a running mean of rewards; TRL's `bco_pair` has δ = 0.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
    """
    return -F.logsigmoid(rewards.chosen) - F.logsigmoid(-rewards.rejected)


def sppo_hard_loss(log_ratio: Pair, *, beta: float) -> Batch:
    """Self-Play Preference Optimization with hard labels: (ρ_w - 1/(2β))² + (ρ_l + 1/(2β))², ρ the log-ratio.

    log Z is set to 0. A population of hard labels has the stationary point ρ = (q - ½)/β, q the share of pairs won.
    The authors' code has half of it.

    Source: Wu et al. 2024 (arXiv:2405.00675), with P of 1 and 0; β for 1/η. TRL's `sppo_hard`.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        beta: The log-ratios aimed at are ±1/(2β).

    Raises:
        ValueError: If `beta` is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return (log_ratio.chosen - 1 / (2 * beta)) ** 2 + (log_ratio.rejected + 1 / (2 * beta)) ** 2


def apo_zero_loss(rewards: Pair) -> Batch:
    """Anchored Preference Optimization, zero: 1 - σ(r_w) + σ(r_l). The chosen becomes likelier, the rejected less likely.

    For chosen answers that are better than what the policy writes. Bounded: the slope vanishes far from 0 on either side.

    Source: D'Oosterlinck et al. 2024 (arXiv:2408.06266), eq. 7; TRL's `apo_zero`.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
    """
    return torch.sigmoid(-rewards.chosen) + torch.sigmoid(rewards.rejected)


def apo_down_loss(rewards: Pair) -> Batch:
    """Anchored Preference Optimization, down: σ(r_w) + 1 - σ(r_w - r_l). Both become less likely, the rejected more so.

    For chosen answers that are worse than what the policy writes. Bounded, as `apo_zero_loss`.

    Source: D'Oosterlinck et al. 2024 (arXiv:2408.06266), eq. 8; TRL's `apo_down`.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
    """
    return torch.sigmoid(rewards.chosen) + torch.sigmoid(rewards.rejected - rewards.chosen)


def cal_dpo_loss(log_ratio: Pair, *, beta: float) -> Batch:
    """Calibrated DPO: -log σ(D) + ½ [(ρ_w - 1/(2β))² + (ρ_l + 1/(2β))²], ρ the log-ratio. The first term has no β.

    A single pair has a finite optimum, which DPO's has not.

    Source: Xiao et al. 2024 (arXiv:2412.14516); weights as in the authors' code, which takes means of squares.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        beta: The log-ratios aimed at are ±1/(2β).

    Raises:
        ValueError: If `beta` is not positive.
    """
    calibration = 0.5 * sppo_hard_loss(log_ratio, beta=beta)
    return calibration - F.logsigmoid(log_ratio.chosen - log_ratio.rejected)
