"""Answers TRL's scoring call from one packed row, in which each prompt stands once, instead of padded rows.

TRL scores with `model(input_ids, attention_mask, labels, fused_lm_head=True)` and reads per-token fields of shape
(rows, time - 1). `SharedPrefixModel` takes that call, packs the rows so that each prompt is computed once, runs the
model it was given (the wrapped one, so that DDP sees the gradients), and hands the fields back in that shape. Losses
and metrics do not know.

With LoRA dropout, answers to one prompt also share its dropout mask: each log-probability has the distribution it has
without sharing, but those of a pair are no longer independent given the weights. Without dropout nothing changes beyond
rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from .attention import NAME, Kernel, Packed, kernel_for, mask_for
from .plan import Plan, make_plan

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
FLEX_BLOCK = 128
TOLERANCE = 1e-3
"""Largest difference per token, in nats, that the equivalence check takes for rounding."""


class NotEquivalent(RuntimeError):
    """Packed and padded scoring of the same batch differ by more than rounding."""


class SharedPrefixModel:
    """Stands in for a model in TRL's scoring call; everything else is asked of the model itself.

    Args:
        model: A causal language model with TRL's fused head, wrapped or not, prepared by `prepare`.
        kernel: How attention is computed; by default the fastest for the device of the batch.
        plan: Called with the batch's `input_ids` and a function that makes its plan; may return one made before.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        kernel: Kernel | None = None,
        plan: Callable[[Tensor, Callable[[], Plan]], Plan] = lambda _, make: make(),
    ) -> None:
        self.model = model
        self.kernel: Kernel | None = kernel
        self.plan = plan

    def __call__(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        fused_lm_head: bool,
        use_cache: bool = False,
        **other: Any,
    ) -> FusedCausalLMOutput:
        """Per-token fields of the padded batch, shape (rows, time - 1), zero outside the labels.

        Raises:
            TypeError: For an input that cannot be packed, such as pixel values.
        """
        if other or not fused_lm_head:
            raise TypeError(f"cannot score packed rows with {sorted(other) or 'a head that is not fused'}")
        kernel = self.kernel or kernel_for(input_ids.device)
        block = FLEX_BLOCK if kernel == "flex" else 1
        plan = self.plan(
            input_ids,
            lambda: make_plan(input_ids, attention_mask, labels != -100, multiple_of=block).to(input_ids.device),
        )
        outputs = self.model(
            input_ids=plan.input_ids,
            position_ids=plan.position_ids,
            attention_mask=mask_for(plan, kernel),
            packed=Packed(kernel, plan.groups),
            shift_labels=plan.targets,
            fused_lm_head=True,
        )
        fields = {name: plan.unpack(value) for name in FIELDS if (value := getattr(outputs, name)) is not None}
        return FusedCausalLMOutput(**fields, label_mask=labels[:, 1:] != -100)


def prepare(model: nn.Module) -> str:
    """Let the model attend over packed rows. What it computes otherwise does not change.

    Returns:
        The name of its attention implementation before, for `restore`.
    """
    base = _base(model)
    previous = str(base.config._attn_implementation)
    base.set_attn_implementation(NAME)
    return previous


def restore(model: nn.Module, previous: str) -> None:
    """Undo `prepare`."""
    _base(model).set_attn_implementation(previous)


def unsupported(model: nn.Module, *, max_length: int | None) -> str | None:
    """Why the rows of this model cannot share prompts, or None if nothing speaks against it.

    Args:
        model: The policy or the reference.
        max_length: Longest row, in tokens: a sliding window that is not shorter changes nothing.
    """
    base = _base(model)
    config: Any = base.config.get_text_config()
    name = f"{type(base).__name__} ({config.model_type})"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    slides = "sliding_attention" in kinds if getattr(config, "layer_types", None) else window is not None
    if isinstance(model, PeftModel) and any(c.is_prompt_learning for c in model.peft_config.values()):
        return "prompt-learning adapters put virtual tokens in front of each row"
    if isinstance(model, PeftModel) and any(map(_reads_the_row, model.peft_config.values())):
        return "the adapter does other things after certain tokens of a row, or to rows as a whole"
    if getattr(base, "_is_stateful", False) or kinds - {"full_attention", "sliding_attention"}:
        other = ", ".join(sorted(kinds - {"full_attention", "sliding_attention"})) or "a recurrent state"
        return f"{name} has layers that carry state along the row ({other})"
    if config.model_type in ("bloom", "mpt") or getattr(config, "alibi", False):
        return f"{name} biases attention by distance along the row (ALiBi)"
    if slides and (max_length is None or window is None or max_length > window):
        return f"{name} attends through a sliding window of {window}, and rows have up to {max_length or 'any number of'} tokens"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return f"{name} soft-caps attention scores"
    if dropout := max(map(_attention_dropout, base.modules()), default=0.0):
        return f"{name} has attention dropout {dropout}"
    if config.is_encoder_decoder or not base._can_set_attn_implementation():
        return f"{name} does not use transformers' attention interface"
    chosen = base.config._attn_implementation
    if chosen not in ("sdpa", "eager", NAME):
        return f"attn_implementation={chosen!r} was asked for; packed rows need 'sdpa' or 'eager'"
    return None


def _reads_the_row(config: Any) -> bool:
    """Whether what an adapter adds to a token depends on other tokens of its row: activated LoRA, mixtures of adapters."""
    return bool(getattr(config, "alora_invocation_tokens", None)) or config.peft_type in ("XLORA", "POLY")


def _attention_dropout(module: nn.Module) -> float:
    """Of an attention module, however it is called there; 0 for anything else."""
    found: Any = getattr(module, "attention_dropout", None) or getattr(module, "attn_dropout", 0.0)
    rate = found.p if isinstance(found, nn.Dropout) else found
    return float(rate) if isinstance(rate, float | int) else 0.0


def check_equivalent(
    model: Callable[..., Any], batch: dict[str, Tensor], kernel: Kernel | None = None, *, exact: bool = True
) -> float:
    """Score a batch packed and padded, and compare.

    Both run in single precision, half-precision weights cast product by product, and no token may differ by more than
    `TOLERANCE`. Where that cannot be had (`exact` is false: quantised layers keep their own rounding, and wrappers may
    bring autocast), the mean difference must not be above a fifth of what a wrong mask makes of the same row, attention
    to everything before, other answers included. That is a coarse test: it finds models that pay no heed to the mask,
    not a small leak.

    Args:
        model: The model in evaluation mode, or its forward.
        batch: `input_ids`, `attention_mask` and `labels`.
        kernel: See `SharedPrefixModel`.
        exact: Whether the model computes in single precision when asked to.

    Returns:
        The largest absolute difference of a token's log-probability, in nats.

    Raises:
        NotEquivalent: If they differ by more than rounding.
    """
    scored = batch["labels"][:, 1:] != -100

    def difference(other: Kernel | None) -> Tensor:
        scorer: Any = SharedPrefixModel(model, other)
        packed = scorer(**batch, fused_lm_head=True).log_probs
        return (padded - packed).abs()[scored]

    with torch.no_grad(), torch.autocast(batch["input_ids"].device.type, enabled=False), _SinglePrecision():
        padded = model(**batch, use_cache=False, fused_lm_head=True).log_probs
        found = difference(kernel)
        if found.numel() == 0:
            return 0.0
        largest, mean = float(found.max()), float(found.mean())
        within = largest <= TOLERANCE if exact else mean <= 0.2 * float(difference("causal").mean())
    if not within:
        raise NotEquivalent(f"log-probabilities differ by up to {largest:.2g} nats per token, {mean:.2g} on average")
    return largest


class _SinglePrecision(TorchFunctionMode):
    """Casts half-precision arguments of embeddings and matrix products, so that only one weight is copied at a time."""

    products = (
        nn.functional.linear, nn.functional.embedding, nn.functional.layer_norm, nn.functional.rms_norm,
        nn.functional.conv1d, torch.addmm, torch.matmul, torch.mm,
    )  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.products:
            args, kwargs = tree_map(_single, (args, kwargs))
        return func(*args, **(kwargs or {}))


def _single(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def _base(model: nn.Module) -> PreTrainedModel:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(inner, PreTrainedModel):
        raise TypeError(f"expected a transformers model, got {type(inner).__name__}")
    return inner
