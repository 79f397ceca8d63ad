"""Scores a batch of pairs by policy and reference through TRL's fused head; and joins prompts to sampled completions."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor, nn
from trl import DPOTrainer as TRLDPOTrainer

from align.losses.preference import desensitized_logps, sequence_logps

from .trl_contract import fast_head

NOT_FOR_THE_MODEL = frozenset({"completion_mask", "ref_chosen_logps", "ref_rejected_logps"})
COLUMN = "column."
"""Prefix of a batch's entries that are data columns; they are for the loss alone."""
ROWS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
"""What a batch of sampled completions holds of each row."""
SCALED_HEADS = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


class Scored(NamedTuple):
    """Per-token statistics of a [chosen; rejected] batch; values outside `mask` mean nothing."""

    token_logps: Float[Tensor, "rows time"]
    entropy: Float[Tensor, "rows time"]
    mean_logits: Float[Tensor, "rows time"]
    is_top1: Bool[Tensor, "rows time"]
    mask: Bool[Tensor, "rows time"]
    log_sum_sq_probs: Float[Tensor, "rows time"] | None = None
    """log Σ p² over the vocabulary, where `use_weighting` asks for it."""


def whole(rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Token ids of prompts with their completions, and the mask of what is no padding; each of shape (rows, time)."""
    ids, mask = (torch.cat([rows[f"prompt_{name}"], rows[f"completion_{name}"]], dim=1) for name in ("ids", "mask"))
    return ids, mask


def without_columns(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch without its data columns."""
    return {name: value for name, value in inputs.items() if not name.startswith(COLUMN)}


def scoring_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the model gets of a batch, and the labels to score."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    kept = without_columns(inputs).items()
    return {name: value for name, value in kept if name not in NOT_FOR_THE_MODEL} | {"labels": labels}


def score(model: Callable[..., Any], inputs: dict[str, Tensor]) -> tuple[Scored, Any]:
    """Run the policy (the wrapped model, so that DDP sees the gradients) through TRL's fused head."""
    mask = inputs["completion_mask"][:, 1:].bool()
    with fast_head():
        outputs = model(**scoring_inputs(inputs), use_cache=False, fused_lm_head=True)
    last = slice(-mask.size(1), None)  # prompt-learning adapters put virtual tokens in front
    squares = outputs.log_sum_sq_probs
    return Scored(
        outputs.log_probs[:, last],
        outputs.entropy[:, last].detach(),
        outputs.mean_logits[:, last].detach(),
        outputs.is_top1[:, last],
        mask,
        None if squares is None else squares[:, last].detach(),
    ), outputs


def answer_logps(scored: Scored, ld_alpha: float | None) -> Float[Tensor, " rows"]:
    """Log-probabilities of whole answers, in nats; under LD-DPO what is beyond the shorter one's length counts less."""
    if ld_alpha is None:
        return sequence_logps(scored.token_logps, scored.mask)
    return desensitized_logps(scored.token_logps, scored.mask, alpha=ld_alpha)


def reference_logps(trainer: TRLDPOTrainer, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities of the reference, from the batch where they are cached, else by a forward pass."""
    if "ref_chosen_logps" in inputs:
        return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    with torch.no_grad():
        chosen, rejected = trainer.compute_ref_log_probs(model, inputs)
    return chosen, rejected


def backbone_of(model: Any) -> nn.Module:
    """The model below its output head and its adapter's wrapper."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return base.base_model


@contextlib.contextmanager
def last_hidden(backbone: nn.Module | None) -> Iterator[list[Tensor]]:
    """The last hidden states of each forward pass of `backbone` within, in order, shape (rows, time, width)."""
    seen: list[Tensor] = []
    if backbone is None:
        yield seen
        return
    handle = backbone.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    try:
        yield seen
    finally:
        handle.remove()


def frozen_head(model: Any, where: str, name: str) -> Float[Tensor, "vocabulary width"]:
    """Weight of the output head, where logits are hidden states times it and nothing else.

    Raises:
        ValueError: If the head is trained, has a bias, or scales or caps its logits.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    head = base.get_output_embeddings()
    config: Any = model.config.get_text_config()
    if not isinstance(head, nn.Linear) or head.weight.requires_grad:
        remedy = "leave lm_head out of the LoRA settings" if isinstance(model, PeftModel) else "give a peft_config"
        raise ValueError(f"{where}: {name} needs a frozen output head; {remedy}")
    found = [name for name in SCALED_HEADS if getattr(config, name, None) not in (None, 1, 1.0)]
    if found or head.bias is not None:
        raise ValueError(f"{where}: {name} knows plain output heads, and this one has {', '.join(found) or 'a bias'}")
    return head.weight
