"""How far the policy has moved: the KL divergence from the reference, estimated from the policy's own answers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .stats import Estimate, mean_estimate


def sampled_kl(
    policy_logps: Sequence[Float[Tensor, " _tokens"]],
    ref_logps: Sequence[Float[Tensor, " _tokens"]],
    *,
    rng: np.random.Generator,
) -> Estimate:
    """KL(π‖π_ref) per answer in nats: the mean of log π(y|x) - log π_ref(y|x) over answers y that π sampled.

    Unbiased only if both log-probabilities are those of the distribution that was sampled, temperature and truncation
    included. A single answer's term may be negative; the mean estimates something that is not.

    Args:
        policy_logps: Per answer, log π of each token at the sampling temperature.
        ref_logps: The same under the reference.
        rng: For the bootstrap interval over prompts.
    """
    terms = [float((p - r).sum()) for p, r in zip(policy_logps, ref_logps, strict=True)]
    return mean_estimate(np.array(terms), rng=rng)
