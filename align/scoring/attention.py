"""Computes attention over a packed row: an answer sees its prompt and itself, never another answer.

Registered with transformers' attention interface under the name `shared_prefix`, so that projections, rotary embeddings
and everything else stay the model's own. Without a `Packed` argument it is scaled dot-product attention, so that
generation and unpacked scoring go on as before.
"""

from itertools import groupby
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .plan import Group, Plan

NAME = "shared_prefix"
Kernel = Literal["dense", "cascade", "flex", "causal"]
"""`causal` is wrong on purpose: every position sees all before it. What the equivalence check compares with."""
SHORT = 1024
"""Longest prefix or answer, in tokens, up to which backward attends in single precision whatever the queries are in: in
bfloat16 the kernel takes up to three times as long for 128 of them, and as long for 1024 (torch 2.13, AVX-512)."""
_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Packed(NamedTuple):
    """What attention needs to know of a plan: how to compute, and where groups and answers stand."""

    kernel: Kernel
    groups: tuple[Group, ...]


def kernel_for(device: torch.device) -> Kernel:
    """The fastest kernel on `device`: cascade calls on CPUs, FlexAttention on CUDA, else a dense mask."""
    if device.type == "cpu":
        return "cascade"
    return "flex" if device.type == "cuda" else "dense"


def dense_mask(plan: Plan) -> Bool[Tensor, "1 1 packed packed"]:
    """Who attends to whom: the same group, not later, and either a prefix or the same answer."""
    index = torch.arange(len(plan.group), device=plan.group.device)
    seen = index[:, None] >= index[None, :]
    seen &= plan.group[:, None] == plan.group[None, :]
    seen &= (plan.answer[None, :] == 0) | (plan.answer[:, None] == plan.answer[None, :])
    return seen[None, None]


def mask_for(plan: Plan, kernel: Kernel) -> Any:
    """The `attention_mask` that goes with a kernel; one of four dimensions is passed on untouched by transformers."""
    if kernel == "dense":
        return dense_mask(plan)
    if kernel == "cascade":
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=plan.group.device)
    if kernel == "causal":
        return torch.ones_like(dense_mask(plan)).tril()
    group, answer, length = plan.group, plan.answer, len(plan.group)
    return create_block_mask(
        lambda batch, head, query, key: (  # a lambda: its signature is read, and tests wrap functions
            (group[query] == group[key]) & (query >= key) & ((answer[key] == 0) | (answer[query] == answer[key]))
        ),
        B=None,
        H=None,
        Q_LEN=length,
        KV_LEN=length,
        device=group.device.type,
    )


class CascadeAttention(torch.autograd.Function):
    """Exact attention in few dense calls per group, without a mask.

    Prefix and answers attend each to themselves in causal calls, neighbours of the same length in one, and all answers to
    the prefix in one unmasked call; the two are merged by their log-sum-exps. In backward every partial call is handed
    the merged output and log-sum-exp, which makes its gradients the exact parts of the whole (as in ring attention, Liu
    et al. 2023, arXiv:2310.01889).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "1 heads packed width"],
        key: Float[Tensor, "1 kv_heads packed width"],
        value: Float[Tensor, "1 kv_heads packed width"],
        groups: tuple[Group, ...],
        scale: float,
    ) -> Float[Tensor, "1 heads packed width"]:
        """The attention output, zero at positions of no group."""
        k, v = _for_each_head(key, query), _for_each_head(value, query)
        out = torch.zeros_like(query)
        logsumexp = query.new_zeros(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))

        def attend(rows: Span, columns: Span, *, causal: bool) -> tuple[Tensor, Tensor]:
            return _FORWARD(_of(query, rows), _of(k, columns), _of(v, columns), 0.0, causal, scale=scale)

        for spans, answers, prefix in map(_spans, groups):
            for span in spans:
                _of(out, span)[:], _of(logsumexp, span)[:] = attend(span, span, causal=True)
            if prefix:
                onto_prefix, partial = attend(answers, prefix, causal=False)
                merged, so_far = _of(out, answers), _of(logsumexp, answers)
                whole = torch.logaddexp(so_far, partial)
                own = merged * (so_far - whole).exp()[..., None]
                merged[:] = own + onto_prefix * (partial - whole).exp()[..., None]
                so_far[:] = whole
        ctx.save_for_backward(query, key, value, out, logsumexp)
        ctx.groups, ctx.scale = groups, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of query, key and value, summed over the partial calls and over the heads that share a key."""
        query, key, value, out, logsumexp = ctx.saved_tensors
        longest = max((max(group.prefix, *group.answers) for group in ctx.groups), default=0)
        kind = logsumexp.dtype if longest <= SHORT else query.dtype
        grad, q, attended = gradients[0].to(kind).contiguous(), query.to(kind), out.to(kind)
        k, v = _for_each_head(key.to(kind), query), _for_each_head(value.to(kind), query)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)

        def gradients_of(rows: Span, columns: Span, *, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            return _BACKWARD(
                _of(grad, rows), _of(q, rows), _of(k, columns), _of(v, columns),
                _of(attended, rows), _of(logsumexp, rows), 0.0, causal, scale=ctx.scale,
            )  # fmt: skip

        for spans, answers, prefix in map(_spans, ctx.groups):
            for span in spans:
                _of(dq, span)[:], _of(dk, span)[:], _of(dv, span)[:] = gradients_of(span, span, causal=True)
            if prefix:
                found = gradients_of(answers, prefix, causal=False)
                for total, span, part in zip((dq, dk, dv), (answers, prefix, prefix), found, strict=True):
                    _of(total, span).add_(part)
        return dq.to(query.dtype), _over_heads(dk, key), _over_heads(dv, value), None, None


class Span(NamedTuple):
    """Positions of a packed row that attend in one call: `parts` stretches of the same length, one after the other."""

    start: int
    stop: int
    parts: int = 1


def _of(x: Tensor, span: Span) -> Tensor:
    """A span of a (1, heads, packed, ...) tensor as (parts, heads, length, ...), without a copy."""
    here = x[:, :, span.start : span.stop]
    return here if span.parts == 1 else here[0].unflatten(1, (span.parts, -1)).transpose(0, 1)


def _spans(group: Group) -> tuple[list[Span], Span, Span | None]:
    """What attends to itself, all the answers, and what they attend to besides."""
    at = begin = group.start + group.prefix
    prefix = Span(group.start, begin) if group.prefix else None
    spans = [prefix] if prefix else []
    for length, alike in groupby(group.answers):
        parts = len(list(alike))
        spans.append(Span(at, at + parts * length, parts))
        at += parts * length
    return spans, Span(begin, at), prefix


def _for_each_head(shared: Tensor, query: Tensor) -> Tensor:
    return shared.repeat_interleave(query.shape[1] // shared.shape[1], dim=1)


def _over_heads(gradient: Tensor, shared: Tensor) -> Tensor:
    return gradient.unflatten(1, (shared.shape[1], -1)).sum(dim=2).to(shared.dtype)


@torch.compiler.disable  # inside a graph it would be compiled anew for every batch's lengths, or the model as one graph
def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: Packed | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What models call. `sliding_window` is dropped on a packed row: only rows that fit into the window are packed.

    Raises:
        NotImplementedError: On a packed row, for what changes the scores (soft-capping, sinks, biases, dropout).
    """
    if packed is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    changed = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if changed or dropout:
        raise NotImplementedError(f"attention with {', '.join(changed) or 'dropout'} on a packed row")
    if packed.kernel == "flex":
        return flex_attention_forward(module, query, key, value, attention_mask, scaling=scaling)
    if packed.kernel in ("dense", "causal"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, is_causal=False)
    if attention_mask is None or attention_mask.shape != (1, 1, 1, 1):
        raise NotImplementedError("attention with a mask of the model's own on a packed row")
    if torch.is_autocast_enabled(query.device.type):
        kind = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = CascadeAttention.apply(query, key, value, packed.groups, scale)
    return out.transpose(1, 2).contiguous(), None  # pyright: ignore[reportOptionalMemberAccess]


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
