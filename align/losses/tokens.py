"""Computes losses on single completions: no config objects, no state, no logging, no reduction over the batch.

Each takes `token_logps`, log π(y_t | x, y_<t) in nats of shape (batch, time), and `completion_mask`, True where the token
belongs to y; values outside the mask are ignored, NaN included. Each returns one value per row, (batch,). What the
trainer divides their sum by is declared in `token_objectives.py`.

| objective | value of a row | divided by | reads |
|---|---|---|---|
| nll | -Σ l_t | tokens | |
| dft | -Σ sg(p_t) l_t | tokens | |
| unlikelihood | -Σ l_t, or -α Σ log(1 - p_t) where the row is unwanted | tokens | reward |
| rwr | -min(e^(R/β), cap) Σ l_t | tokens | reward |
| awr | -Σ min(e^((R - V_t)/β), cap) l_t | tokens | reward, values |
| poft | -log σ(mean l_t - aligned) | completions | aligned_logp |
| fsft | -φ(β ρ + V) + V | completions | reference |
| ref_kl | Σ_t KL(π_ref(·|y_<t) ‖ π(·|y_<t)) | tokens | reference |

with l_t = log p_t, p_t = π(y_t | x, y_<t), ρ = log π(y|x) - log π_ref(y|x), and sg the stop-gradient.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from .preference import Batch, log1m_exp, sequence_logps

TokenLogps = Float[Tensor, "batch time"]
CompletionMask = Bool[Tensor, "batch time"]
Hidden = Float[Tensor, "positions width"]

CERTAIN = 1e-4
"""Unlikelihood is exact for log-probabilities up to -CERTAIN, where p = 0.9999, and lies on its tangent beyond."""
CHUNK = 128  # positions whose logits exist at a time


def mean_logps(token_logps: TokenLogps, completion_mask: CompletionMask) -> Batch:
    """Log-probability per token of the completion, in nats, shape (batch,).

    Raises:
        ValueError: If a row has no completion token.
    """
    return sequence_logps(token_logps, completion_mask) / completion_mask.sum(dim=1)


def nll(token_logps: TokenLogps, completion_mask: CompletionMask) -> Batch:
    """Negative log-likelihood, summed over the completion. Per token.

    Raises:
        ValueError: If a row has no completion token.
    """
    return -sequence_logps(token_logps, completion_mask)


def dft(token_logps: TokenLogps, completion_mask: CompletionMask) -> Batch:
    """Dynamic fine-tuning: -Σ sg(p_t) log p_t, whose gradient is that of -Σ p_t. Per token.

    The value, -p log p, is no measure of progress: it is 0 both at p = 1 and at p = 0. Watch the NLL instead.

    Source: Wu et al. 2025 (arXiv:2508.05629).

    Raises:
        ValueError: If a row has no completion token.
    """
    inside = token_logps.masked_fill(~completion_mask, 0.0)
    return -sequence_logps(inside.detach().exp() * inside, completion_mask)


def unlikelihood(
    token_logps: TokenLogps, completion_mask: CompletionMask, unwanted: Bool[Tensor, " batch"], *, alpha: float
) -> Batch:
    """Likelihood of wanted completions, unlikelihood -α Σ log(1 - p_t) of unwanted ones. Per token.

    Source: Welleck et al. 2019 (arXiv:1908.04319), as an objective on scored text in Korbak et al. 2023
    (arXiv:2302.08582). Deviations: a row is judged as a whole, where the latter scores segments of it; and
    above p = 0.9999 the loss goes on along its tangent, so that it stays finite where p rounds to 1.

    Args:
        token_logps: See above.
        completion_mask: See above.
        unwanted: True for completions to be pushed away. Shape (batch,).
        alpha: Weight of the unwanted completions, at least 0.

    Raises:
        ValueError: If `alpha` is negative, or a row has no completion token.
    """
    if alpha < 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    avoided = -alpha * sequence_logps(_log1m_exp(token_logps), completion_mask)
    return torch.where(unwanted, avoided, nll(token_logps, completion_mask))


def _log1m_exp(logps: TokenLogps) -> TokenLogps:
    """log(1 - e^l) for l ≤ 0, continued along its tangent above -CERTAIN; half precision is computed in float32."""
    if logps.dtype in (torch.bfloat16, torch.float16):
        logps = logps.float()
    exact = logps.clamp(max=-CERTAIN)
    value = log1m_exp(exact)
    return value - (logps - exact) / math.expm1(CERTAIN)


def rwr_weight(reward: Float[Tensor, "..."], *, beta: float, max_weight: float) -> Float[Tensor, "..."]:
    """min(e^(R/β), max_weight), of the shape of the rewards or advantages R, without overflow.

    Raises:
        ValueError: If `beta` or `max_weight` is not positive.
    """
    if not (beta > 0 and max_weight > 0):
        raise ValueError(f"beta and max_weight must be positive, got {beta} and {max_weight}")
    return (reward / beta).clamp(max=math.log(max_weight)).exp()


def rwr(
    token_logps: TokenLogps, completion_mask: CompletionMask, reward: Batch, *, beta: float, max_weight: float
) -> Batch:
    """Reward-weighted regression: the NLL times min(e^(R/β), max_weight). Per token.

    Without the cap its optimum is the law of the data times e^(R/β). The weights are not normalised: a reward shifted
    by c is a loss scaled by e^(c/β).

    Source: Peters and Schaal 2007, in the form of Korbak et al. 2023 (arXiv:2302.08582): their advantage-weighted regression
    without a value function.

    Args:
        token_logps: See above.
        completion_mask: See above.
        reward: Score of each completion. Shape (batch,).
        beta: Temperature, in units of the reward.
        max_weight: Largest weight of a completion.

    Raises:
        ValueError: If `beta` or `max_weight` is not positive, or a row has no completion token.
    """
    return rwr_weight(reward, beta=beta, max_weight=max_weight) * nll(token_logps, completion_mask)


def awr(
    token_logps: TokenLogps,
    completion_mask: CompletionMask,
    reward: Batch,
    values: Float[Tensor, "batch time"],
    *,
    beta: float,
    max_weight: float,
) -> Batch:
    """Advantage-weighted regression: -Σ min(e^((R - V_t)/β), max_weight) log p_t. Per token.

    V_t is what a value function expects of the reward once the tokens before t are read; it is a constant here. Where it
    is one number a prompt it cancels from the optimum, which is `rwr`'s, as long as the cap binds nowhere.

    Source: Peng et al. 2019 (arXiv:1910.00177), per token as in Korbak et al. 2023 (arXiv:2302.08582). Deviation: a
    completion has one reward, where the latter scores segments of it.

    Args:
        token_logps: See above.
        completion_mask: See above.
        reward: Score of each completion. Shape (batch,).
        values: V_t, in units of the reward. Shape (batch, time). Values outside the mask are ignored, NaN included.
        beta: Temperature, in units of the reward.
        max_weight: Largest weight of a token.

    Raises:
        ValueError: If `beta` or `max_weight` is not positive, `values` has a gradient, or a row has no completion token.
    """
    if values.requires_grad:
        raise ValueError("values requires a gradient; the value function is trained apart")
    weights = rwr_weight(reward[:, None] - values, beta=beta, max_weight=max_weight).masked_fill(~completion_mask, 0.0)
    return nll(weights * token_logps, completion_mask)


def poft(token_logps: TokenLogps, completion_mask: CompletionMask, aligned_logp: Batch) -> Batch:
    """Preference-oriented fine-tuning: -log σ(mean l_t - aligned), favouring the policy over aligned models. Per sequence.

    Its gradient is that of the length-mean NLL times σ(aligned - mean l_t), a weight in (0, 1).

    Source: Fan et al. 2024 (arXiv:2412.12865).

    Args:
        token_logps: See above.
        completion_mask: See above.
        aligned_logp: Length-mean log-probability of the completion in nats per token, averaged over the aligned models,
            from `align.scoring.poft_column`. Shape (batch,).

    Raises:
        ValueError: If a row has no completion token.
    """
    return -F.logsigmoid(mean_logps(token_logps, completion_mask) - aligned_logp)


def fsft(
    logps: Batch,
    ref_logps: Batch,
    value: Batch,
    *,
    beta: float,
    divergence: Literal["total_variation", "chi_squared"],
) -> Batch:
    """SFT as implicit-reward learning under an f-divergence: -φ(r) + V with r = β ρ + V. Per sequence.

    Matching π to the expert's law, with r = β log π/π_ref + V(x) and V = β log E_ref[e^(r/β)], gives the maximum of
    E_expert[φ(r)] - V, where π(y) = expert(y) φ'(r(y)). Total variation has φ(r) = r: π is the expert's law, and the
    reference is gone; this is SFT. χ² has φ(r) = r - r²/4: the reference stays in. Its best V is -β E_expert[ρ], so that
    it is SFT less β²/4 times the variance of ρ over the expert's answers to a prompt.

    With V = 0 ("dropped"), which needs one answer per prompt only, the optimum keeps its form up to a constant:
    π(y) ∝ expert(y) φ'(β ρ(y)); for χ² answers are pushed up less the further they have risen, and not beyond β ρ = 2.

    Source: derived from the view of Wang et al. 2025 (arXiv:2507.00018). These are this derivation's objectives; the
    paper's own may differ.

    Args:
        logps: log π(y|x), summed, in nats. Shape (batch,). Carries the gradient.
        ref_logps: log π_ref(y|x), likewise.
        value: V(x) in nats, shape (batch,); zeros to drop it.
        beta: Strength of the pull towards the reference.
        divergence: Which φ.

    Raises:
        ValueError: If `beta` is not positive, `divergence` unknown, or `ref_logps` requires a gradient.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    if divergence not in ("total_variation", "chi_squared"):
        raise ValueError(f"divergence must be 'total_variation' or 'chi_squared', got {divergence!r}")
    if ref_logps.requires_grad:
        raise ValueError("ref_logps requires a gradient: compute it under torch.no_grad()")
    reward = beta * (logps - ref_logps) + value
    gain = reward if divergence == "total_variation" else reward - reward**2 / 4
    return value - gain


def ref_kl(
    hidden: Hidden, ref_hidden: Hidden, weight: Float[Tensor, "vocabulary width"], *, chunk: int = CHUNK
) -> Float[Tensor, " positions"]:
    """KL(π_ref ‖ π) of the next token over the whole vocabulary, in nats, one value per position. Per token.

    Both distributions are softmax(h Wᵀ) with the same frozen W. Logits exist for `chunk` positions at a time, in forward
    only: what is kept for backward is one vector of the model's width per position. The gradient with respect to the
    logits is π - π_ref.

    With DFT it is ASFT (Zhu et al. 2025, arXiv:2509.23753), whose code anchors in this direction, the reference first. An
    estimate from the tokens of the data would be biased: they come from neither model.

    Args:
        hidden: Last hidden states of the policy. Shape (positions, width). Carries the gradient.
        ref_hidden: Those of the reference.
        weight: The output head's, without bias. Shape (vocabulary, width).
        chunk: Positions whose logits exist at a time.

    Raises:
        ValueError: If `weight` or `ref_hidden` requires a gradient, which would be lost.
    """
    if weight.requires_grad or ref_hidden.requires_grad:
        raise ValueError("weight and ref_hidden must not require a gradient: only `hidden` gets one")
    return _ChunkedKL.apply(hidden, ref_hidden, weight, chunk)  # type: ignore[return-value]


class _ChunkedKL(torch.autograd.Function):
    """The gradient, (π - π_ref) W, is computed along with the value, as in `align.scoring.head.FrozenHead`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, ref_hidden: Tensor, weight: Tensor, chunk: int) -> Tensor:
        device = hidden.device.type
        compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        head = weight.to(compute)
        values = hidden.new_empty(len(hidden), dtype=exact)
        slope = torch.empty_like(hidden, dtype=exact) if ctx.needs_input_grad[0] else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), chunk):
                part = slice(start, start + chunk)
                logp = (hidden[part].to(compute) @ head.t()).to(exact).log_softmax(dim=-1)
                ref_logp = (ref_hidden[part].to(compute) @ head.t()).to(exact).log_softmax(dim=-1)
                ref = ref_logp.exp()
                values[part] = (ref * ref_logp.sub_(logp)).sum(dim=-1)
                if slope is not None:
                    slope[part] = (logp.exp_().sub_(ref).to(compute) @ head).to(exact)
        ctx.save_for_backward(slope)
        ctx.dtype = hidden.dtype
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return (slope * gradients[0][:, None]).to(ctx.dtype), None, None, None
