"""Computes losses on two sampled answers and a judge's preference, and PPO's on the tokens of one.

Which of two answers is `chosen` is not decided by a label.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from .objectives import OBJECTIVES, PairBatch, pairwise_loss
from .preference import Batch, Pair, PreferenceLoss, implicit_rewards

NASH_MD = "nash_md"
OPTIMISM = "optimism"
LOG_RATIO = 20.0
"""Beyond it a token's log-ratio counts as this many nats, so that no loss or gradient overflows."""


def nash_md_loss(policy: Batch, ref: Batch, preference: Batch, *, beta: float) -> Batch:
    """Nash-MD as a policy gradient: -(P(y ≻ y') - 1/2 - β · log π(y)/π_ref(y)) · log π(y), the bracket without gradient.

    y is sampled from π, y' from a mixture of π and π_ref, and only y is learnt from. The log-ratio is the whole answer's:
    a product taken token by token, as in TRL's former trainer, is another gradient.

    Source: Munos et al. 2023 (arXiv:2312.00886), its policy-gradient form, from memory; checked by its stationary point.

    Args:
        policy: log π(y|x) in nats, summed over the answer. Shape (batch,).
        ref: log π_ref(y|x), likewise.
        preference: P(y ≻ y'). In [0, 1], shape (batch,).
        beta: Strength of the pull towards the reference.
    """
    return -(preference - 0.5 - beta * (policy.detach() - ref)) * policy


def optimism_loss(second: Batch, *, alpha: float) -> Batch:
    """XPO's term, α · log π(y') for the reference's answer y', whoever won: it is pushed down, so that others are tried.

    Linear in log π: beside DPO's it is bounded below only for a small α (per answer, not per token).

    Source: Xie et al. 2024 (arXiv:2405.21046), from memory; sign and scale as in TRL's former trainer.

    Args:
        second: log π(y'|x) in nats, summed over the reference's answer. Shape (batch,).
        alpha: α, not negative.
    """
    return alpha * second


def clipped_policy_loss(
    token_logps: Float[Tensor, "rows time"],
    sampled: Float[Tensor, "rows time"],
    advantages: Float[Tensor, "rows time"],
    *,
    epsilon: float,
    epsilon_high: float,
) -> Float[Tensor, "rows time"]:
    """PPO's loss of each token, -min(ρ A, clip(ρ, 1 - ε, 1 + ε_high) A) with ρ = π/q; only log π has a gradient.

    log ρ is held within 20 nats of 0, beyond which it has no gradient. Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7.

    Args:
        token_logps: log π of each token, in nats.
        sampled: log q of the law that sampled it, likewise.
        advantages: A of each token.
        epsilon: ε, below 1.
        epsilon_high: ε_high, positive.
    """
    token_logps, sampled = (
        x.float() if x.dtype in (torch.bfloat16, torch.float16) else x for x in (token_logps, sampled)
    )
    ratio = (token_logps - sampled.detach()).clamp(-LOG_RATIO, LOG_RATIO).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantages)


def online_pair_loss(
    batch: PairBatch,
    objective: Mapping[str, float],
    preference: Batch,
    *,
    beta: float,
    optimism: float = 0.0,
    **settings: float,
) -> PreferenceLoss:
    """The weighted sum of objectives on a first and a second answer, in expectation over the label.

    A pairwise objective ℓ(chosen, rejected) counts P · ℓ(first, second) + (1 - P) · ℓ(second, first): a tie weighs one
    half on either side, and no variance comes from the label. With P = 0 or 1 it is the loss of that label.

    Online IPO (arXiv:2403.08635) is `ipo` here: the slope is that of (D - (P - 1/2)/β)². For two answers from the policy's
    own law that is in expectation the one against an opponent, (D - (P(y ≻ π) - P(y' ≻ π))/β)².

    Args:
        batch: Of the two answers; `chosen` is the first, `rejected` the second. Columns are the judge's: `chosen_reward`
            and `rejected_reward` are scores of the first and the second.
        objective: Names from `OBJECTIVES`, or `nash_md`, and their weights.
        preference: P(first ≻ second). Shape (batch,).
        beta: As for `pairwise_loss`.
        optimism: XPO's α.
        settings: As for `pairwise_loss`.

    Returns:
        `rewards` are those of the first and the second answer.
    """
    pairwise = {name: weight for name, weight in objective.items() if name in OBJECTIVES}
    components: dict[str, Batch] = {}
    rewards = implicit_rewards(batch.log_ratio, beta=beta)
    if pairwise:
        told = {"margin": batch.scores.chosen - batch.scores.rejected, "preference": preference}
        forth = pairwise_loss(batch._replace(columns={**batch.columns, **told}), pairwise, beta=beta, **settings)
        back = pairwise_loss(_turned(batch, told), pairwise, beta=beta, **settings)
        rewards = forth.rewards
        components = {
            name: preference * forth.components[name] + (1 - preference) * back.components[name] for name in pairwise
        }
    if NASH_MD in objective:
        policy_gradient = nash_md_loss(batch.policy.chosen, batch.ref.chosen, preference, beta=beta)
        components[NASH_MD] = objective[NASH_MD] * policy_gradient
    if optimism:
        components[OPTIMISM] = optimism_loss(batch.policy.rejected, alpha=optimism)
    first, *rest = components.values()
    return PreferenceLoss(sum(rest, start=first), rewards, components, {})


def labels(preference: Batch, label: str) -> Batch:
    """What a preference counts as: itself (`expected`), a draw of 0 or 1 (`sampled`), or the likelier side (`likelier`).

    A draw comes from torch's generator of the CPU. A tie stays one half where the likelier side is taken.
    """
    if label == "sampled":
        return torch.bernoulli(preference.cpu().double()).to(preference)
    if label == "likelier":
        return (1 + torch.sign(preference - 0.5)) / 2
    return preference


def win_rates(preference: Batch) -> Float[Tensor, "batch 2"]:
    """Mean probability of each of two answers of being preferred to both, itself among them. Shape (batch, 2)."""
    return torch.stack([0.5 + preference, 1.5 - preference], dim=1) / 2


def _turned(batch: PairBatch, told: Mapping[str, Batch]) -> PairBatch:
    """The same answers in the other order."""
    first, second = batch.scores
    columns = {"chosen_reward": second, "rejected_reward": first}
    columns |= {"margin": -told["margin"], "preference": 1 - told["preference"]}
    policy, ref, tokens = (Pair(pair.rejected, pair.chosen) for pair in batch[:3])
    return PairBatch(policy, ref, tokens, columns)
