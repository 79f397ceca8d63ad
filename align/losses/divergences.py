"""Defines f-divergences D_f(π‖π_ref) = E_ref[f(u)], u = π/π_ref, through f'(u) as a function of log u.

Every generator is normalised to f(1) = 0 and f'(1) = 0, so that rewards are zero while policy and reference agree.
f-DPO needs f' strictly increasing with f'(0+) = -∞: only then does the term that depends on the prompt alone cancel in
a pair (Wang et al. 2023, arXiv:2309.16240). Pearson's χ², total variation and α < 0 fail it and are not
offered.

| name | f(u) | f'(u) | u f''(u) | f''(1) |
|---|---|---|---|---|
| reverse_kl | u log u - u + 1 | log u | 1 | 1 |
| forward_kl | -log u + u - 1 | 1 - 1/u | 1/u | 1 |
| jensen_shannon | u log u - (u+1) log((u+1)/2) | log(2u/(1+u)) | 1/(1+u) | 1/2 |
| alpha | (u^(1-α) - (1-α)u - α) / (α(α-1)) | (1 - u^-α)/α | u^-α | 1 |
| chi_squared_kl | (u-1)²/2 + u log u - u + 1 | u - 1 + log u | 1 + u | 2 |

`jensen_shannon` is the paper's: KL(π‖m) + KL(π_ref‖m), twice the textbook value, at most 2 log 2. `alpha` is the
paper's α in (0, 1); TRL's `f_alpha_divergence_coef` is 1 - α. `chi_squared_kl` is χPO's (Huang et al. 2024,
arXiv:2407.13399), without its optional clipping.

Deviation from the papers: f' is exact for log-ratios in [-15, 15] (for `alpha`, α times the log-ratio), and beyond
continues along its tangent. The continued f' is C¹ and strictly increasing with f'(0+) = -∞, so it is the f' of another
valid f, and neither a NaN nor a dead gradient can occur where sequence log-ratios of -100 or +100 are routine. A hard
clamp, as in TRL, has gradient zero there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LogRatio = Float[Tensor, " batch"]

EXACT_RANGE = 15.0
"""Log-ratios of larger magnitude (in nats) lie on the tangent instead of the curve."""

LOG_2 = 0.6931471805599453


@dataclass(frozen=True)
class Divergence:
    """One f-divergence, as f-DPO needs it.

    `f_prime` and `slope` are the exact functions of the log-ratio r: f'(e^r) and its derivative d f'(e^r) / dr =
    u f''(u). Calling the object gives f' with the linear continuation described above.
    """

    name: str
    f_prime: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: float
    """f''(1). Near the reference every f acts like f''(1)/2 times χ², so β f''(1) is the comparable strength."""
    exact_range: float = EXACT_RANGE

    def __call__(self, log_ratio: LogRatio) -> LogRatio:
        """f'(u) at log u = `log_ratio`, shape (batch,); half precision is computed in float32."""
        if log_ratio.dtype in (torch.bfloat16, torch.float16):
            log_ratio = log_ratio.float()
        inside = log_ratio.clamp(-self.exact_range, self.exact_range)
        return self.f_prime(inside) + self.slope(inside) * (log_ratio - inside)

    def in_tail(self, log_ratio: LogRatio) -> Float[Tensor, " batch"]:
        """1 where the continuation is used, else 0."""
        return (log_ratio.abs() > self.exact_range).float()


def divergence(name: str, *, alpha: float | None = None) -> Divergence:
    """The divergence called `name`; `alpha` belongs to `name="alpha"` and to no other.

    Raises:
        ValueError: If the name is unknown, or `alpha` is missing, superfluous or outside (0, 1).
    """
    if name not in DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {name!r}")
    if name != "alpha":
        if alpha is not None:
            raise ValueError(f"alpha is only used by divergence 'alpha', got alpha={alpha} with {name!r}")
        return DIVERGENCES[name]()
    if alpha is None:
        raise ValueError("divergence 'alpha' needs alpha, a number in (0, 1); 0 is reverse_kl, 1 is forward_kl")
    if not 0.0 < alpha < 1.0:
        remedy = "f'(0+) would be finite, so f-DPO does not apply" if alpha < 0 else "0 is reverse_kl, 1 is forward_kl"
        raise ValueError(f"alpha must be in (0, 1), got {alpha}; {remedy}")
    return _alpha(alpha)


def _reverse_kl() -> Divergence:
    return Divergence("reverse_kl", lambda r: r, torch.ones_like, curvature=1.0)


def _forward_kl() -> Divergence:
    return Divergence("forward_kl", lambda r: -torch.expm1(-r), lambda r: torch.exp(-r), curvature=1.0)


def _jensen_shannon() -> Divergence:
    return Divergence("jensen_shannon", lambda r: LOG_2 + F.logsigmoid(r), lambda r: torch.sigmoid(-r), curvature=0.5)


def _chi_squared_kl() -> Divergence:
    return Divergence("chi_squared_kl", lambda r: torch.expm1(r) + r, lambda r: torch.exp(r) + 1, curvature=2.0)


def _alpha(alpha: float = 0.5) -> Divergence:
    return Divergence(
        f"alpha={alpha:g}",
        lambda r: -torch.expm1(-alpha * r) / alpha,
        lambda r: torch.exp(-alpha * r),
        curvature=1.0,
        exact_range=EXACT_RANGE / alpha,
    )


DIVERGENCES: dict[str, Callable[..., Divergence]] = {
    "reverse_kl": _reverse_kl,
    "forward_kl": _forward_kl,
    "jensen_shannon": _jensen_shannon,
    "alpha": _alpha,
    "chi_squared_kl": _chi_squared_kl,
}
