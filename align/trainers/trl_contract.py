"""Everything we assume about TRL 1.16 beyond its documented API, in one place; `tests/test_trl_contract.py` holds it.

- `DPOTrainer` patches the model's forward so that `fused_lm_head=True` yields `FusedCausalLMOutput`: `log_probs`,
  `entropy`, `mean_logits`, `is_top1`, each (2B, T-1), zero outside the labels.
- A batch is [chosen; rejected] on dim 0, with `input_ids`, `attention_mask`, `completion_mask` and, if precomputed,
  `ref_chosen_logps` and `ref_rejected_logps`.
- `compute_ref_log_probs(model, batch)` returns summed log-probabilities of the reference; a fresh adapter's reference
  is the base model, a loaded adapter's is a frozen copy named "ref".
- The patched forward asks `trl.trainer.utils._use_triton(device)` whether to project label positions only; on CPU it
  would project every position, prompts included.
- `aux_loss_enabled` and `_is_vision_dataset` say what their names say; `_metrics` is merged into the logs by `log`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from trl import DPOTrainer as TRLDPOTrainer
from trl.trainer import utils as trl_utils

NOT_FOR_THE_MODEL = frozenset({"completion_mask", "ref_chosen_logps", "ref_rejected_logps"})


class Scored(NamedTuple):
    """Per-token statistics of a [chosen; rejected] batch; values outside `mask` mean nothing."""

    token_logps: Float[Tensor, "rows time"]
    entropy: Float[Tensor, "rows time"]
    mean_logits: Float[Tensor, "rows time"]
    is_top1: Bool[Tensor, "rows time"]
    mask: Bool[Tensor, "rows time"]


def score(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Scored, Any]:
    """Run the policy (the wrapped model, so that DDP sees the gradients) through TRL's fused head."""
    mask = inputs["completion_mask"][:, 1:].bool()
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    kwargs = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
    with compact_head():
        outputs = model(**kwargs, use_cache=False, labels=labels, fused_lm_head=True)
    last = slice(-mask.size(1), None)  # prompt-learning adapters put virtual tokens in front
    return Scored(
        outputs.log_probs[:, last],
        outputs.entropy[:, last].detach(),
        outputs.mean_logits[:, last].detach(),
        outputs.is_top1[:, last],
        mask,
    ), outputs


@contextlib.contextmanager
def compact_head() -> Iterator[None]:
    """On CPU too, let TRL's fused head see only the positions that have a label.

    TRL does so on CUDA; elsewhere it keeps shapes fixed for compilers that would recompile, which a CPU does not need.
    """
    original = trl_utils._use_triton
    trl_utils._use_triton = lambda device: device.type == "cpu" or original(device)
    try:
        yield
    finally:
        trl_utils._use_triton = original


@contextlib.contextmanager
def dropout_off(*models: nn.Module | None) -> Iterator[None]:
    """Every module in evaluation mode: the reference is deterministic even where the policy has dropout.

    Attention dropout is a function that reads its module's mode, so switching `nn.Dropout` off would not do.
    """
    active = [module for model in models if model is not None for module in model.modules() if module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True


def reference_logps(trainer: TRLDPOTrainer, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the reference, from the batch where they are cached, else by a forward pass."""
    if "ref_chosen_logps" in inputs:
        return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    with torch.no_grad(), compact_head():
        chosen, rejected = trainer.compute_ref_log_probs(model, inputs)
    return chosen, rejected
