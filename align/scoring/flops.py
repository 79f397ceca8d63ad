"""Counts the FLOPs of a step while it runs, and predicts them from lengths. A multiply-add counts as two."""

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
    """FLOPs of all matrix products and attention calls in `run`, backward included, as `FlopCounter` counts them."""
    with FlopCounterMode(display=False, custom_mapping=_FUSED) as counter:
        run()
    return counter.get_total_flops()


class FlopCounter(FlopCounterMode):
    """Counts matrix products and attention while it is entered, backward included, by what they are for.

    torch's counter, with what it lacks: fused attention on CPUs, where a causal call counts the pairs it attends to and
    a masked one those that the mask leaves, and products into a buffer. On CUDA, torch counts attention without regard
    to masks.

    A product is a layer's or an adapter's if it has the shape of one of their weights, else the head's, which may come
    in slices of the vocabulary. A step over exactly as many positions as an adapter has ranks counts products of other
    layers as the adapter's too; the sum is right all the same.

    Args:
        model: What runs, adapted or not; tells the kinds apart.

    Attributes:
        by_kind: FLOPs so far of `linear`, `lora`, `head` and `attention` (the angles of rotary embeddings included).
    """

    def __init__(self, model: nn.Module) -> None:
        self.by_kind: dict[str, int] = dict.fromkeys(("linear", "lora", "head", "attention"), 0)
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        head = base.get_output_embeddings()
        self._linear = {frozenset((m.in_features, m.out_features)) for _, m, _, _ in _maps(model) if m is not head}
        self._lora = {frozenset(p.shape) for name, p in model.named_parameters() if "lora_" in name and p.dim() == 2}
        attention = {op: self._kept("attention", formula) for op, formula in _FUSED.items() if op != aten.addmm_}
        batched = {op: self._kept("attention", _batched_product) for op in (aten.bmm, aten.baddbmm)}
        plain = {op: self._kept(None, _product) for op in (aten.mm, aten.addmm, aten.addmm_)}
        super().__init__(display=False, custom_mapping=attention | batched | plain)

    def _kept(self, kind: str | None, formula: Callable[..., int]) -> Callable[..., int]:
        def counted(*args: Any, **kwargs: Any) -> int:
            flops = formula(*args, **kwargs)
            self.by_kind[kind or self._kind(args[-2], args[-1])] += flops
            return flops

        return _raw(counted)

    def _kind(self, a: Tensor, b: Tensor) -> str:
        shapes = {frozenset(b.shape), frozenset((a.shape[0], b.shape[1]))}  # of the weight, or of its gradient
        if shapes & self._lora:
            return "lora"
        return "linear" if shapes & self._linear else "head"


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
def _product(*factors: Tensor, **_: Any) -> int:
    a, b = factors[-2:]  # what is added to comes first
    return 2 * a.shape[0] * a.shape[1] * b.shape[1]


def _batched_product(*factors: Tensor, **_: Any) -> int:
    a, b = factors[-2:]
    return 2 * a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2]


def _attended(q: Tensor, k: Tensor, causal: bool, mask: Tensor | None) -> float:
    """Query-key pairs over batch and heads."""
    batch, heads, queries, _ = q.shape
    if causal:
        return batch * heads * queries * (queries + 1) / 2
    if mask is None:
        return float(batch * heads * queries * k.shape[2])
    seen = (mask if mask.dtype == torch.bool else mask > -1).float().mean(dim=(-2, -1))
    return float(seen.expand(batch, heads).sum()) * queries * k.shape[2]


_FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.addmm_: _product,
}


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
    head_everywhere: bool = False,
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
        head_everywhere: Whether the head is applied to all positions of padded rows, as TRL does on CPUs.
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
    scored = n - len(answers) if head_everywhere else sum(answer for _, answer in answers)
    head = 2.0 * model.head * scored
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
