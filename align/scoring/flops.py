"""FLOPs of a step: counted while it runs, and predicted from lengths. A multiply-add counts as two."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
READS_EMBEDDINGS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn")
"""Projections that read the embeddings in the first layer: nothing needs the gradient of their input."""


def count_flops(run: Callable[[], Any]) -> int:
    """FLOPs of all matrix products and attention calls in `run`, backward included.

    torch's counter, with what it lacks: fused attention on CPUs, where a causal call counts the pairs it attends to and
    a masked one those that the mask leaves, and products into a buffer.
    """
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        aten.addmm_: _addmm_in_place,
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        run()
    return counter.get_total_flops()


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    formula._get_raw = True  # type: ignore[attr-defined] # FlopCounterMode then passes tensors, not shapes
    return formula


@_raw
def _attention_forward(
    q: Tensor, k: Tensor, v: Tensor, p: float = 0.0, causal: bool = False, *, attn_mask: Tensor | None = None, **_: Any
) -> int:
    return int(4 * q.shape[-1] * _attended(q, k, causal, attn_mask))


@_raw
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, p: float, causal: bool,
    *, attn_mask: Tensor | None = None, **_: Any,
) -> int:  # fmt: skip
    return int(10 * q.shape[-1] * _attended(q, k, causal, attn_mask))  # five products in place of two


@_raw
def _addmm_in_place(total: Tensor, a: Tensor, b: Tensor, **_: Any) -> int:
    return 2 * a.shape[0] * a.shape[1] * b.shape[1]


def _attended(q: Tensor, k: Tensor, causal: bool, mask: Tensor | None) -> float:
    """Query-key pairs over batch and heads."""
    batch, heads, queries, _ = q.shape
    if causal:
        return batch * heads * queries * (queries + 1) / 2
    if mask is None:
        return float(batch * heads * queries * k.shape[2])
    seen = (mask if mask.dtype == torch.bool else mask > -1).float().mean(dim=(-2, -1))
    return float(seen.expand(batch, heads).sum()) * queries * k.shape[2]


class Architecture(NamedTuple):
    """Multiply-adds per position of a decoder, and what attention and head need."""

    linear: int
    """Weights of all layers' linear maps, the frozen base of adapted ones included, the head not."""
    lora: int
    first_linear: int
    """Those of the first layer that read the embeddings; and their adapters' down-projections."""
    first_lora: int
    layers: int
    attention_width: int
    """Query heads times width of a head."""
    head: int
    """Width times vocabulary."""

    @staticmethod
    def of(model: nn.Module) -> "Architecture":
        """Read off a model, adapted or not."""
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        config, head = base.config.get_text_config(), base.get_output_embeddings()
        linear = lora = first_linear = first_lora = 0
        for name, weights, adapter, down in _maps(model):
            if weights is head:
                continue
            size = weights.in_features * weights.out_features
            linear += size
            lora += adapter
            if ".0." in name and name.rpartition(".")[2] in READS_EMBEDDINGS:
                first_linear += size
                first_lora += down
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        size = head.weight.shape[0] * head.weight.shape[1]
        return Architecture(linear, lora, first_linear, first_lora, config.num_hidden_layers, heads * width, size)


def _maps(model: nn.Module) -> Iterator[tuple[str, Any, int, int]]:
    """Name, linear map, adapter weights, and weights of the adapter's down-projection, of every linear map."""
    inside: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            base: Any = module.get_base_layer()
            inside |= {id(each) for each in module.modules()}  # type: ignore[attr-defined]
            active = [adapter for adapter in module.active_adapters if adapter in module.lora_A]
            down, up = (
                sum(p.numel() for adapter in active for p in side[adapter].parameters())
                for side in (module.lora_A, module.lora_B)
            )
            if hasattr(base, "in_features"):
                yield name, base, down + up, down
        elif isinstance(module, nn.Linear) and id(module) not in inside:
            yield name, module, 0, 0


def step_flops(
    model: Architecture,
    groups: Sequence[tuple[int, ...]],
    *,
    shared: bool,
    checkpointing: bool,
    reference_online: bool,
    head_products: int = 2,
) -> float:
    """FLOPs of forward and backward over a micro-batch with a frozen base, and of the reference pass if there is one.

    Forward is 2 n (linear + LoRA), 4 · layers · width · attended pairs, and the head on the scored positions. Backward
    repeats the linear part for inputs, the LoRA part for inputs and weights, and 2.5 times attention. Checkpointing adds
    a forward without the head.

    Args:
        model: The policy's.
        groups: Tokens of a prompt and of each of its answers; a pair is (prompt, chosen, rejected).
        shared: One packed row, or padded rows.
        checkpointing: Whether activations are computed again in backward.
        reference_online: Whether the reference is computed in the step.
        head_products: Matrix products of the head in training: 2 of `FrozenHead`, 3 of TRL's.
    """
    answers = [(prompt, answer) for prompt, *rest in groups for answer in rest]
    if shared:
        n = sum(prompt - 1 + sum(rest) for prompt, *rest in groups)
        pairs = sum(_causal(p - 1) + sum((p - 1) * a + _causal(a) for a in rest) for p, *rest in groups)
    else:
        widest = max(prompt + answer for prompt, answer in answers)
        n = len(answers) * widest  # a padding query attends to the real keys of its row
        pairs = sum(_causal(p + a) + (widest - p - a) * (p + a) for p, a in answers)
    linear, lora = 2.0 * n * model.linear, 2.0 * n * model.lora
    attention = 4.0 * model.layers * model.attention_width * pairs
    head = 2.0 * model.head * sum(answer for _, answer in answers)
    forward = linear + lora + attention
    backward = linear + 2 * lora + 2.5 * attention
    if checkpointing:
        backward += forward
    else:
        backward -= 2.0 * n * (model.first_linear + model.first_lora)
    reference = linear + attention + head if reference_online else 0.0
    return forward + backward + head_products * head + reference


def _causal(length: int) -> float:
    return length * (length + 1) / 2
