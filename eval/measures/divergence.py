"""Estimates how far the policy has moved from the reference: divergences from samples of both sides, of which none is below 0.

r = log π(y|x) - log π_ref(y|x) of a whole answer, in nats. Both log-probabilities must be those of the distribution that
was sampled, temperature and truncation included.

A divergence is E_ref[f(u)] with u = e^r and f >= 0. The answers of both sides together are a sample of the even mixture of
π and π_ref, under which it is the mean of 2 f(u) / (1 + u): every term is 0 or more, and where the policies are near, it
errs by far less than the mean of r. Source of the weights: the balance heuristic, Veach and Guibas 1995.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from eval.statistics.intervals import Estimate, mean_estimate

from .diversity import predictive_entropy

TokenLogps = Sequence[Float[Tensor, " _tokens"]]

Answers = Float[np.ndarray, " answers"]
LARGEST_LOG_RATIO = 700.0  # whose exponential is a number


def _softplus(x: Answers) -> Answers:
    return np.logaddexp(0.0, x)


def _sigmoid(x: Answers) -> Answers:
    return np.exp(-_softplus(-x))


def _of_both(
    term: Callable[[Answers], Answers], from_policy: Answers, from_ref: Answers, most: float = math.inf
) -> Estimate:
    """Mean of a term of r over the answers of both sides, prompt by prompt; the i-th answers belong to one prompt."""
    return mean_estimate(_terms(term, from_policy, from_ref), bounds=(0.0, most))


def _terms(term: Callable[[Answers], Answers], from_policy: Answers, from_ref: Answers) -> Answers:
    return np.maximum((term(from_policy) + term(from_ref)) / 2, 0.0)


def _kl_term(r: Answers) -> Answers:
    """2 f(u) / (1 + u) for f(u) = u log u - u + 1."""
    below = np.maximum(r, -LARGEST_LOG_RATIO)
    return 2 * _sigmoid(below) * below - 2 * np.tanh(below / 2)


def reverse_kl(from_policy: Answers, from_ref: Answers) -> Estimate:
    """KL(π‖π_ref) in nats.

    Args:
        from_policy: r of answers that π sampled, shape (answers,).
        from_ref: r of answers that the reference sampled, for the same prompts.
    """
    return _of_both(_kl_term, from_policy, from_ref)


class Carried(NamedTuple):
    """How a divergence is spread over prompts."""

    largest: float
    """The share of it that the prompt with the most of it holds."""
    prompt: int
    """The index of that prompt."""
    median: float
    """What the prompt in the middle has, in nats."""


def carried_by(from_policy: Answers, from_ref: Answers) -> Carried:
    """How `reverse_kl` is spread over prompts; where one holds much, intervals are at 85 to 93% and not at 95."""
    terms = _terms(_kl_term, from_policy, from_ref)
    total = float(terms.sum())
    return Carried(float(terms.max()) / total if total > 0 else 0.0, int(terms.argmax()), float(np.median(terms)))


def forward_kl(from_policy: Answers, from_ref: Answers) -> Estimate:
    """KL(π_ref‖π) in nats; arguments as those of `reverse_kl`."""
    return _of_both(_kl_term, -from_policy, -from_ref)


def jensen_shannon(from_policy: Answers, from_ref: Answers) -> Estimate:
    """½ KL(π‖m) + ½ KL(π_ref‖m), m the mean of both; in [0, log 2] nats. Half of what the f-DPO paper calls JSD.

    Its term is log 2 less the entropy of σ(r). Arguments as those of `reverse_kl`.
    """

    def term(r: Answers) -> Answers:
        r = np.clip(r, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        return np.log(2) - _sigmoid(r) * _softplus(-r) - _sigmoid(-r) * _softplus(r)

    return _of_both(term, from_policy, from_ref, math.log(2))


def alpha_divergence(from_policy: Answers, from_ref: Answers, *, alpha: float) -> Estimate:
    """E_ref[f(u)], f(u) = (u^(1-α) - (1-α) u - α) / (α (α - 1)): the f-DPO paper's α-divergence.

    Args:
        from_policy: As in `reverse_kl`.
        from_ref: As in `reverse_kl`.
        alpha: In (0, 1). Towards 0 it is the reverse KL, towards 1 the forward KL.

    Raises:
        ValueError: If `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")

    def term(r: Answers) -> Answers:
        overlap = np.exp((1 - alpha) * r + np.log(2) - _softplus(r))
        return (2 * (1 - alpha) * _sigmoid(r) + 2 * alpha * _sigmoid(-r) - overlap) / (alpha * (1 - alpha))

    return _of_both(term, from_policy, from_ref, 1 / (alpha * (1 - alpha)))


def _not_negative(terms: Answers) -> Estimate:
    """Mean of terms that may be negative and estimate something that is not."""
    mean = mean_estimate(terms, bounds=(0.0, math.inf))
    return Estimate(max(mean.value, 0.0), mean.low, max(mean.high, 0.0), mean.n)


def sampled_kl(
    policy_logps: Sequence[Float[Tensor, " _tokens"]], ref_logps: Sequence[Float[Tensor, " _tokens"]]
) -> Estimate:
    """KL(π‖π_ref) per answer in nats, from answers of π alone: the mean of r. With answers of both, `reverse_kl` errs less.

    Args:
        policy_logps: Per answer, log π of each token at the sampling temperature.
        ref_logps: The same under the reference.
    """
    return _not_negative(np.array([float((p - r).sum()) for p, r in zip(policy_logps, ref_logps, strict=True)]))


def per_token(
    policy_logps: Sequence[Float[Tensor, " _tokens"]], ref_logps: Sequence[Float[Tensor, " _tokens"]]
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
        curve.append(_not_negative(np.array(terms)))
    return curve


def divergence_estimates(
    policy_answers: tuple[TokenLogps, TokenLogps], ref_answers: tuple[TokenLogps, TokenLogps]
) -> dict[str, Estimate]:
    """How far the policy moved, from answers of both sides, and how spread out each side's answers are; in nats.

    `entropy/policy` is an expectation over answers of the policy, `entropy/ref` over those of the reference, divergences
    are over both. Answers cut at their greatest length count as they are.

    Args:
        policy_answers: Log-probabilities of the policy's answers under the policy, and under the reference.
        ref_answers: The same of the reference's answers, to the same prompts in the same order.
    """
    from_policy, from_ref = (
        np.array([float((p.double() - r.double()).sum()) for p, r in zip(*side, strict=True)])
        for side in (policy_answers, ref_answers)
    )
    return {
        "kl": reverse_kl(from_policy, from_ref),
        "forward_kl": forward_kl(from_policy, from_ref),
        "jensen_shannon": jensen_shannon(from_policy, from_ref),
        "entropy/policy": predictive_entropy(policy_answers[0]),
        "entropy/ref": predictive_entropy(ref_answers[1]),
    }
