"""Computes log-probabilities through a frozen output head: two matrix products, none of them in backward."""

from itertools import count
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CHUNK = 256  # positions whose logits exist at a time
BLOCK = 16  # positions whose logits exist in single precision at a time: on a CPU, as many as its cache holds


class FrozenHead(torch.autograd.Function):
    """log p(target | h) and statistics of p, for logits z = s h Wᵀ with a weight W that gets no gradient.

    With e = (onehot(y) - softmax(z)) W, the gradient of log p_y with respect to h is s e. It is computed along with the
    value, chunk by chunk, so that no logits are kept or computed again: one product for z and one for e, where
    recomputing in backward takes three.

    The statistics (entropy, mean logit, whether the target is the most likely token) carry no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "scored width"],
        weight: Float[Tensor, "vocabulary width"],
        targets: Int[Tensor, " scored"],
        scale: float,
        statistics: bool,
    ) -> tuple[Float[Tensor, " scored"], Float[Tensor, " scored"], Float[Tensor, " scored"], Bool[Tensor, " scored"]]:
        """Returns log p(target), entropy, mean logit (zeros without `statistics`) and is_top1."""
        device = hidden.device.type
        compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        frozen = weight.to(compute)
        logps = hidden.new_empty(len(hidden), dtype=exact)
        entropy, mean_logits = torch.zeros_like(logps), torch.zeros_like(logps)
        is_top1 = torch.zeros_like(logps, dtype=torch.bool)
        block_size = BLOCK if device == "cpu" else CHUNK
        wanted = ctx.needs_input_grad[0]
        slope = torch.empty_like(hidden, dtype=exact) if wanted else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), CHUNK):
                logits = hidden[start : start + CHUNK].to(compute) @ frozen.t()
                for position, block in zip(count(start, block_size), logits.split(block_size), strict=False):
                    part = slice(position, position + len(block))
                    y, z = targets[part], block.to(exact, copy=True)
                    if scale != 1.0:
                        z *= scale
                    top, likeliest = z.max(dim=-1)
                    at_target = z.gather(1, y[:, None])[:, 0]
                    # what the logits say before the softmax overwrites them
                    if statistics:
                        mean_logits[part] = z.mean(dim=-1)
                        is_top1[part] = likeliest == y
                    # log-sum-exp, in place, from the largest logit down
                    z -= top[:, None]
                    shifted = z.clone() if statistics else None
                    z.exp_()
                    total = z.sum(dim=-1)
                    log_total = total.log()
                    logps[part] = at_target - top - log_total
                    if shifted is not None:
                        entropy[part] = log_total - torch.linalg.vecdot(shifted, z) / total
                    # d logp / d logits = onehot - softmax, kept where the logits were
                    if slope is not None:
                        z /= -total[:, None]
                        z[torch.arange(len(y), device=y.device), y] += 1.0
                        block.copy_(z)
                # and on to d logp / d hidden, so that backward needs no second product
                if slope is not None:
                    slope[start : start + len(logits)] = logits @ frozen
        ctx.save_for_backward(slope)
        ctx.scale, ctx.dtype = scale, hidden.dtype
        ctx.mark_non_differentiable(entropy, mean_logits, is_top1)
        ctx.set_materialize_grads(False)
        return logps, entropy, mean_logits, is_top1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """The kept slope times the incoming gradient."""
        (slope,) = ctx.saved_tensors
        if gradients[0] is None or slope is None:
            return None, None, None, None, None
        return (slope * (ctx.scale * gradients[0])[:, None]).to(ctx.dtype), None, None, None, None
