"""Moves a policy to a law that is known up to a factor, by the gradient of an f-divergence (f-DPG, arXiv:2302.08215).

The target is p = e^score / Z for each prompt. D_f(π‖p) = E_p f(t), t = π/p, has the gradient E_q[π/q f'(t) ∇ log π] for samples
of any law q; -f'(t) is the pseudo-reward of a sample. A constant that is subtracted leaves the gradient as it is.
"""

import math
from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .divergences import EXACT_RANGE, divergence
from .preference import Batch

TOTAL_VARIATION = "total_variation"
MATCHED = ("forward_kl", "reverse_kl", "jensen_shannon", TOTAL_VARIATION)
"""Divergences from the policy to the target, as `divergences.py` has them with the target for the reference."""


def pseudo_reward(log_ratio: Batch, *, name: str) -> Batch:
    """-f'(t) at log t = log π - log p.

    | name | divergence | -f'(t), but for a constant |
    |---|---|---|
    | forward_kl | KL(p‖π) | 1/t - 1 |
    | reverse_kl | KL(π‖p) | -log t |
    | jensen_shannon | KL(π‖m) + KL(p‖m), m = (π + p)/2 | softplus(-log t) - log 2 |
    | total_variation | ½ Σ abs(π - p) | -½ sign(log t) |

    Constants are those of `divergences.py`, whose tails beyond 15 nats are linear. 1/t grows without bound where the policy
    has too little of the target: prefer another where samples are few.

    Source: Go et al. 2023 (arXiv:2302.08215), table 1, as the authors' code has it.

    Args:
        log_ratio: log π(y|x) - log p(y|x), in nats. Shape (batch,).
        name: One of `MATCHED`.
    """
    if name == TOTAL_VARIATION:
        return -0.5 * torch.sign(log_ratio.float() if log_ratio.dtype in (torch.bfloat16, torch.float16) else log_ratio)
    return -divergence(name)(log_ratio)


def fdpg_loss(policy: Batch, sampled: Batch, target: Batch, baseline: Batch, *, name: str) -> Batch:
    """-π/q (r - baseline) log π, r the pseudo-reward; only log π has a gradient.

    Its expectation under q has the gradient of the divergence. π/q is at most e^15, so that no sample of a law that the
    policy has left makes it infinite.

    Args:
        policy: log π(y|x), summed over the answer, in nats. Shape (batch,).
        sampled: log q(y|x) of the law that sampled y, likewise.
        target: log p(y|x), likewise.
        baseline: Subtracted from pseudo-rewards.
        name: See `pseudo_reward`.
    """
    policy, sampled, target = (
        x.float() if x.dtype in (torch.bfloat16, torch.float16) else x for x in (policy, sampled, target)
    )
    held = policy.detach()
    weight = (held - sampled).clamp(max=EXACT_RANGE).exp()
    return -weight * (pseudo_reward(held - target, name=name) - baseline) * policy


class Normalisers:
    """log Z of each prompt: the log of the mean of e^(score - log q) over all samples of it so far, none forgotten."""

    def __init__(self) -> None:
        self.sums: dict[Hashable, tuple[float, int]] = {}

    def add(self, prompts: Sequence[Hashable], estimates: Float[Tensor, " batch"]) -> None:
        """Count samples, by score - log q in nats."""
        for prompt, estimate in zip(prompts, estimates.double().tolist(), strict=True):
            total, count = self.sums.get(prompt, (-math.inf, 0))
            high = max(total, estimate)
            self.sums[prompt] = high + math.log(math.exp(total - high) + math.exp(estimate - high)), count + 1

    def of(self, prompts: Sequence[Hashable]) -> Float[Tensor, " batch"]:
        """Log Z of prompts, in float64; 0 for those of which nothing was seen."""
        known = [self.sums.get(prompt, (0.0, 1)) for prompt in prompts]
        return torch.tensor([total - math.log(count) for total, count in known], dtype=torch.float64)
