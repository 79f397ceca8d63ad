"""Estimates how far the policy has moved from the reference, from samples of the right side.

r = log π(y|x) - log π_ref(y|x) of a whole answer, in nats. An expectation under π needs answers that π sampled, one under
π_ref answers of the reference; both log-probabilities must be those of the distribution that was sampled, temperature and
truncation included.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from eval.statistics.intervals import Estimate, bca_estimate, rng_of_report

from .diversity import predictive_entropy

TokenLogps = Sequence[Float[Tensor, " _tokens"]]

Answers = Float[np.ndarray, " answers"]


def sampled_kl(
    policy_logps: Sequence[Float[Tensor, " _tokens"]],
    ref_logps: Sequence[Float[Tensor, " _tokens"]],
    *,
    rng: np.random.Generator,
) -> Estimate:
    """KL(π‖π_ref) per answer in nats: the mean of log π(y|x) - log π_ref(y|x) over answers y that π sampled.

    A single answer's term may be negative; the mean estimates something that is not.

    Args:
        policy_logps: Per answer, log π of each token at the sampling temperature.
        ref_logps: The same under the reference.
        rng: For the bootstrap interval over prompts.
    """
    terms = [float((p - r).sum()) for p, r in zip(policy_logps, ref_logps, strict=True)]
    return bca_estimate(np.array(terms), rng=rng)


def reverse_kl(from_policy: Answers, *, rng: np.random.Generator) -> Estimate:
    """KL(π‖π_ref) = E_π[r] in nats. `from_policy`: r of answers that π sampled, shape (answers,)."""
    return bca_estimate(from_policy, rng=rng)


def forward_kl(from_ref: Answers, *, rng: np.random.Generator) -> Estimate:
    """KL(π_ref‖π) = E_ref[-r] in nats. `from_ref`: r of answers that the reference sampled, shape (answers,)."""
    return bca_estimate(-from_ref, rng=rng)


def low_variance_kl(log_ratio: Answers, *, rng: np.random.Generator) -> Estimate:
    """KL(p‖q) from samples of p by e^(-r) - 1 + r, r = log p/q: never negative, and of low variance where p is near q.

    For whole answers that lie far apart e^(-r) has heavy tails and the plain mean is safer; for single tokens it is the
    better one.

    Source: Schulman 2020, "Approximating KL divergence", estimator k3.

    Args:
        log_ratio: log p - log q at samples of p, shape (answers,).
        rng: For the interval.
    """
    return bca_estimate(np.expm1(-log_ratio) + log_ratio, rng=rng)


def jensen_shannon(from_policy: Answers, from_ref: Answers, *, rng: np.random.Generator) -> Estimate:
    """½ KL(π‖m) + ½ KL(π_ref‖m), m the mean of both; in [0, log 2] nats. Half of what the f-DPO paper calls JSD.

    Every term is bounded above, so the tails of r do no harm. The i-th answers of both sides belong to one prompt.

    Args:
        from_policy: r of answers that π sampled, shape (answers,).
        from_ref: r of answers that the reference sampled, for the same prompts.
        rng: For the interval, over prompts.
    """
    ours = np.log(2) - np.logaddexp(0.0, -from_policy)
    theirs = np.log(2) - np.logaddexp(0.0, from_ref)
    return bca_estimate((ours + theirs) / 2, rng=rng)


def alpha_divergence(from_policy: Answers, from_ref: Answers, *, alpha: float, rng: np.random.Generator) -> Estimate:
    """E_ref[f(u)], u = π/π_ref, f(u) = (u^(1-α) - (1-α) u - α) / (α (α - 1)): the f-DPO paper's α-divergence.

    (1 - E_ref[u^(1-α)]) / (α (1-α)), the expectation being the mean of its two forms E_ref[u^(1-α)] = E_π[u^(-α)]. Each
    form is bounded where the other has its tail, so the samples of both sides are weighted by the balance heuristic
    (Veach and Guibas 1995): both come from the mixture m of π and π_ref, and E_m[u^(1-α) · 2 / (1 + u)] is the same
    number with every term bounded.

    Args:
        from_policy: r of answers that π sampled, shape (answers,).
        from_ref: r of answers that the reference sampled, for the same prompts.
        alpha: In (0, 1). Towards 0 it is the reverse KL, towards 1 the forward KL.
        rng: For the interval, over prompts.

    Raises:
        ValueError: If `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")

    def term(r: Answers) -> Answers:
        return np.exp((1 - alpha) * r + np.log(2) - np.logaddexp(0.0, r))

    overlap = (term(from_policy) + term(from_ref)) / 2
    return bca_estimate((1 - overlap) / (alpha * (1 - alpha)), rng=rng)


def per_token(
    policy_logps: Sequence[Float[Tensor, " _tokens"]],
    ref_logps: Sequence[Float[Tensor, " _tokens"]],
    *,
    rng: np.random.Generator,
) -> list[Estimate]:
    """KL(π‖π_ref) spent at each position, in nats: where in the answer the policy differs.

    The mean over the answers that reach a position; positions that fewer than two reach are left out.
    """
    differences = [(p - r).tolist() for p, r in zip(policy_logps, ref_logps, strict=True)]
    longest = max(map(len, differences), default=0)
    curve = []
    for position in range(longest):
        terms = [row[position] for row in differences if len(row) > position]
        if len(terms) < 2:
            break
        curve.append(bca_estimate(np.array(terms), rng=rng))
    return curve


def divergence_estimates(
    policy_answers: tuple[TokenLogps, TokenLogps], ref_answers: tuple[TokenLogps, TokenLogps]
) -> dict[str, Estimate]:
    """How far the policy moved, from answers of both sides, and how spread out each side's answers are; in nats.

    `kl` and `entropy/policy` are expectations over answers of the policy, `forward_kl` and `entropy/ref` over those of
    the reference, `jensen_shannon` over both. Answers cut at their greatest length count as they are.

    Args:
        policy_answers: Log-probabilities of the policy's answers under the policy, and under the reference.
        ref_answers: The same of the reference's answers, to the same prompts in the same order.
    """
    from_policy, from_ref = (
        np.array([float((p.double() - r.double()).sum()) for p, r in zip(*side, strict=True)])
        for side in (policy_answers, ref_answers)
    )
    return {
        "kl": sampled_kl(*policy_answers, rng=rng_of_report()),
        "forward_kl": forward_kl(from_ref, rng=rng_of_report()),
        "jensen_shannon": jensen_shannon(from_policy, from_ref, rng=rng_of_report()),
        "entropy/policy": predictive_entropy(policy_answers[0], rng=rng_of_report()),
        "entropy/ref": predictive_entropy(ref_answers[1], rng=rng_of_report()),
    }
