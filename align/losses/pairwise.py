"""Computes further losses on preference pairs, one function for each formula.

Rewards include β, as everywhere. `log_ratio` is log π - log π_ref, summed over the answer, and D its difference, chosen
minus rejected. Scores (`chosen_reward` and `rejected_reward` in data) come from outside: a reward model, a judge, a test.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .preference import Batch, Pair

Group = Float[Tensor, "prompts k"]


def per_token(pair: Pair, tokens: Pair) -> Pair:
    """Sums over an answer made means over its own tokens: log-probabilities, log-ratios or rewards, shape (batch,)."""
    return Pair(pair.chosen / tokens.chosen, pair.rejected / tokens.rejected)


def robust_dpo_loss(rewards: Pair, *, label_smoothing: float) -> Batch:
    """Robust DPO: an unbiased estimate, from labels that are flipped at a known rate ε, of DPO's loss on clean ones.

    [(1 - ε) · -log σ(margin) - ε · -log σ(-margin)] / (1 - 2ε). Averaged over the flips it is DPO's loss of the true
    label, whatever that is. Unlike cDPO's it has no minimum for a single pair: it falls without bound as the margin grows.

    Source: Chowdhury et al. 2024 (arXiv:2403.00409), the loss of rDPO.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        label_smoothing: ε, the rate of flipped labels. In [0, 0.5); 0 is DPO.

    Raises:
        ValueError: If `label_smoothing` is outside [0, 0.5).
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), got {label_smoothing}")
    margin = rewards.chosen - rewards.rejected
    as_labelled, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return ((1 - label_smoothing) * as_labelled - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def soft_dpo_loss(rewards: Pair, preference: Batch) -> Batch:
    """DPO under a soft label for each pair: cross-entropy between P(chosen preferred) and σ(margin).

    A `preference` of 1 is DPO and 1 - ε is conservative DPO. The minimum of a pair lies at margin = logit(preference).

    Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 7, in expectation over the label.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        preference: Probability, or share of raters, that prefers the chosen answer. In [0, 1], shape (batch,).
    """
    margin = rewards.chosen - rewards.rejected
    return -preference * F.logsigmoid(margin) - (1 - preference) * F.logsigmoid(-margin)


def dno_loss(rewards: Pair, scores: Pair) -> Batch:
    """Direct Nash Optimization: regression by cross-entropy on the soft target σ(r_t(y_1) - r_t(y_2)).

    r_t(y) is the probability that y beats an answer of π_t, the policy of the round before, which is the reference; β has
    the role of the paper's η. The minimiser is softmax(log π_t + r_t/β), however pairs are weighted. The practical form,
    DNO-Prct, keeps clearly separated pairs and sets the target to 1: that is `dpo_loss`.

    Source: Rosset et al. 2024 (arXiv:2404.03715), the regression step of algorithm 1.

    Args:
        rewards: Implicit rewards against π_t, in nats. Each side has shape (batch,).
        scores: r_t of both answers. Each side has shape (batch,).
    """
    return soft_dpo_loss(rewards, torch.sigmoid(scores.chosen - scores.rejected))


def margin_dpo_loss(rewards: Pair, gap: Batch, *, beta: float, gamma: float) -> Batch:
    """DPO that asks for a margin of each pair's own: -log σ(margin - β γ · gap) = -log σ(β (D - γ · gap)).

    Reverse Preference Optimization, whose gap is the number of constraints that only the chosen answer satisfies once
    the instruction is reversed; with a gap of scores it is DPO with an offset (arXiv:2402.10571), whose offset has no β.

    Source: Huang et al. 2025 (arXiv:2505.22172), the objective of RPO (there the name of Reverse PO); γ in β, and 0.05
    at β = 0.1, as in the authors' code.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        gap: How much better the chosen answer is, in the units of the data. Shape (batch,).
        beta: As in the rewards.
        gamma: By how much the log-ratios should differ, in nats, for one unit of `gap`.
    """
    return -F.logsigmoid(rewards.chosen - rewards.rejected - beta * gamma * gap)


def modpo_loss(rewards: Pair, gap: Batch, *, weight: float) -> Batch:
    """Multi-Objective DPO: -log σ((margin - (1 - w) · gap)/w), gap the difference of the other objectives' rewards.

    w belongs to the objective whose pairs are trained. The optimum is π_ref e^((w R + (1-w) m)/β)/Z. Several others are
    one column: Σ_k w_k m_k/(1 - w).

    Source: Zhou et al. 2023 (arXiv:2310.03708), the margin loss; w divides, as in the authors' code.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        gap: m of the chosen less m of the rejected answer, in nats. Shape (batch,).
        weight: w, in (0, 1]; 1 is DPO.

    Raises:
        ValueError: If `weight` is outside (0, 1].
    """
    if not 0.0 < weight <= 1.0:
        raise ValueError(f"weight must be in (0, 1], got {weight}")
    return -F.logsigmoid((rewards.chosen - rewards.rejected - (1 - weight) * gap) / weight)


def reward_aware_rpo_loss(rewards: Pair, scores: Pair, *, eta: float) -> Batch:
    """Reward-aware Preference Optimization: KL(σ(η · score gap) ‖ σ(margin)), between two Bernoulli laws.

    This is the one of Nemotron-4, which NVIDIA's arXiv:2502.00203 calls the backward KL; its squared form is `copg_loss`
    at η = 1, its forward KL is not here. Zero exactly where the margin is η times the gap; a gap without bound gives DPO. Not `rpo_loss`.

    Source: Nemotron-4 340B (arXiv:2406.11704), the loss of its RPO.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        scores: Scores of both answers by a reward model. Each side has shape (batch,).
        eta: Scale of the score gap. Not the η of `rpo_loss`.
    """
    margin, wanted = rewards.chosen - rewards.rejected, eta * (scores.chosen - scores.rejected)
    preferred = torch.sigmoid(wanted) * (F.logsigmoid(wanted) - F.logsigmoid(margin))
    return preferred + torch.sigmoid(-wanted) * (F.logsigmoid(-wanted) - F.logsigmoid(-margin))


def ipo_loss(log_ratio: Pair, *, beta: float) -> Batch:
    """Identity Preference Optimization as published, on summed log-ratios: (D - 1/(2β))².

    TRL's `ipo` is the length-mean one, `ipo_mean_loss`; at equal β the two are far apart.

    Source: Azar et al. 2023 (arXiv:2310.12036), eq. 17, β for its τ.

    Args:
        log_ratio: From `log_ratios`. Each side has shape (batch,).
        beta: The paper's τ: the log-ratio gap aimed at is 1/(2β).

    Raises:
        ValueError: If `beta` is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return (log_ratio.chosen - log_ratio.rejected - 1 / (2 * beta)) ** 2


def ipo_mean_loss(log_ratio: Pair, tokens: Pair, *, beta: float) -> Batch:
    """IPO on length-mean log-ratios: each side divided by its own number of tokens first. TRL's `ipo`.

    Not in the paper; TRL's authors report that its experiments were run so.

    Source: `ipo_loss`; TRL 1.16, loss_type "ipo".
    """
    return ipo_loss(per_token(log_ratio, tokens), beta=beta)


def copg_loss(rewards: Pair, scores: Pair) -> Batch:
    """Contrastive Policy Gradient on a scored pair: (margin - (R_chosen - R_rejected))².

    Which answer is called chosen does not matter, nor where the answers come from: the minimiser is
    softmax(log π_ref + R/β) under any sampling law that covers the answers. A score gap of 1/2 makes it β² times
    `ipo_loss`. With scores s(y ≻ π_t) of a general preference model and π_t as the reference it is β² times GPO in its
    paired form (arXiv:2410.02197; the pointwise form, which sets log Z to 0, has another minimum and is not here).

    Source: Flet-Berliac et al. 2024 (arXiv:2406.19185), the loss of a pair.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        scores: R of both answers; only R/β matters. Each side has shape (batch,).
    """
    return (rewards.chosen - rewards.rejected - (scores.chosen - scores.rejected)) ** 2


def copg_group_loss(rewards: Group, scores: Group) -> Float[Tensor, " prompts"]:
    """Contrastive Policy Gradient on k scored completions of each prompt: Σ_{i>j} (m_i - m_j)²/(k - 1), m = R - reward.

    Equal to k times the sample variance of m. Its gradient is -2β times leave-one-out REINFORCE on m. The sum over a
    prompt's k(k-1)/2 pairs of `copg_loss` with weight 1/(k - 1) is the same number: data of all pairs, each with that
    `weight`, train this loss. The mean over pairs that a trainer takes is then 2/(k(k - 1)) times the mean of this loss
    over prompts, where k is the same for all; where it is not, pairs over prompts is still one factor for all.

    Source: Flet-Berliac et al. 2024 (arXiv:2406.19185), the loss of k samples.

    Args:
        rewards: Implicit rewards in nats, shape (prompts, k).
        scores: R, likewise.

    Returns:
        Losses, shape (prompts,).

    Raises:
        ValueError: If there are fewer than two completions of a prompt.
    """
    if rewards.shape[1] < 2:
        raise ValueError(f"at least two completions of each prompt are needed, got {rewards.shape[1]}")
    return rewards.shape[1] * (scores - rewards).var(dim=1)


def hinge_loss(rewards: Pair) -> Batch:
    """Hinge on the margin: max(0, 1 - margin). The slope is exactly 0 past a margin of 1.

    TRL's `hinge` is that of implicit rewards. SLiC-HF's max(0, δ - log π_w + log π_l) has no reference: it is δ times
    this one of log-probabilities times β = 1/δ.

    Source: Zhao et al. 2023 (arXiv:2305.10425), the calibration loss; Liu et al. 2023 (arXiv:2309.06657) with a reference.

    Args:
        rewards: Implicit rewards in nats, or β log π. Each side has shape (batch,).
    """
    return F.relu(1 - (rewards.chosen - rewards.rejected))


def exo_pair_loss(rewards: Pair, *, label_smoothing: float) -> Batch:
    """Efficient Exact Optimization of a pair: KL((σ(z), σ(-z)) ‖ (1 - ε, ε)), z the margin; the reverse of DPO's KL.

    Its slope vanishes where a pair is far wrong: -5.5e-8 at z = -20, where DPO's is -1.

    Source: Ji et al. 2024 (arXiv:2402.00856), eq. 16; TRL's `exo_pair`.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        label_smoothing: ε, in (0, 0.5); the optimum of a pair is a margin of log((1 - ε)/ε). TRL advises 1e-3.

    Raises:
        ValueError: If `label_smoothing` is outside (0, 0.5).
    """
    if not 0.0 < label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in (0, 0.5), got {label_smoothing}")
    margin = rewards.chosen - rewards.rejected
    kept = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-label_smoothing))
    return kept + torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(label_smoothing))


def discopop_loss(rewards: Pair, *, tau: float) -> Batch:
    """DiscoPOP, the log-ratio modulated loss: (1 - g) · -log σ(x) + g · e^-x with x the margin and g = σ(x/τ).

    Neither convex nor monotone: at τ = 0.05 its slope at x = 0 is +0.78, so the first steps lower every margin, towards
    a local minimum at x = -0.1185; only beyond a local maximum at x = 0.0720 does it fall again.

    Source: Lu et al. 2024 (arXiv:2406.08414), eq. 5. g e^-x is computed as one exponential, so that it stays finite
    where TRL's product overflows.

    Args:
        rewards: Implicit rewards in nats. Each side has shape (batch,).
        tau: Temperature of the modulation; 0.05 in the paper. In (0, 1]: above 1 the exponential outgrows g.

    Raises:
        ValueError: If `tau` is outside (0, 1].
    """
    if not 0.0 < tau <= 1.0:
        raise ValueError(f"tau must be in (0, 1], got {tau}")
    margin = rewards.chosen - rewards.rejected
    exponential = torch.exp(F.logsigmoid(margin / tau) - margin)
    return torch.sigmoid(-margin / tau) * -F.logsigmoid(margin) + exponential


def nll_loss(chosen_logps: Batch, chosen_tokens: Batch) -> Batch:
    """Negative log-likelihood of the chosen answer, a mean over its own tokens: IRPO's second term.

    A mean over the batch's tokens, such as TRL's `sft`, weighs long answers more: answers of 2 and 8 tokens at 1 and 3
    nats a token give 2.0 here and 2.6 there.

    Source: Pang et al. 2024 (arXiv:2404.19733), eq. 1; its rationale and answer are one completion here.

    Args:
        chosen_logps: log π(y_chosen|x) in nats, summed. Shape (batch,).
        chosen_tokens: Tokens of the chosen answer. Shape (batch,).
    """
    return -chosen_logps / chosen_tokens


def wpo_weights(
    token_logps: Float[Tensor, "rows time"],
    log_sum_sq_probs: Float[Tensor, "rows time"],
    completion_mask: Bool[Tensor, "rows time"],
) -> Float[Tensor, " rows"]:
    """How likely an answer is under the policy, against answers it would sample: exp of mean (log π(y_t) - log Σ_v π(v)²).

    The weight of a pair is the product of its two answers', at most 1 (`PairwiseTrainer`), as in the authors' code; TRL's
    has no upper bound. No gradient flows through it.

    Source: Zhou et al. 2024 (arXiv:2406.11827), eq. 2, sampled alignment.

    Args:
        token_logps: log π(y_t | x, y_<t) in nats. Shape (rows, time).
        log_sum_sq_probs: log Σ_v π(v | x, y_<t)² at the same positions.
        completion_mask: True where the token belongs to the answer; every row has one.
    """
    aligned = (token_logps.detach() - log_sum_sq_probs.detach()).masked_fill(~completion_mask, 0.0)
    return (aligned.sum(dim=1) / completion_mask.sum(dim=1)).exp()
