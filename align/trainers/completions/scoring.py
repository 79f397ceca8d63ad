"""Checks a batch of completions, scores it through TRL's fused head, and measures it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor, nn

from align.losses.tokens import nll
from align.models.adapters import active_adapter
from align.trainers.shared.columns import wrong_values
from align.trainers.shared.metrics import TOKENS, Ratio
from align.trainers.shared.reference import copy_reference
from align.trainers.shared.scored import last_hidden
from align.trainers.shared.trl_contract import fast_head


def check_columns(data: Any, columns: Sequence[str], where: str) -> None:
    """See that the columns are there and, where the data are not streamed, that they hold finite numbers.

    Raises:
        ValueError: If not.
    """
    names = data.column_names or list(next(iter(data)))
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{where}: no column {', '.join(missing)}, which the objective reads; there are {', '.join(names)}"
        )
    if columns and isinstance(data, Dataset):
        for name, row, value in wrong_values(data, columns):
            raise ValueError(f"{where}: column {name!r}: row {row} holds {value!r}; mend or drop such rows")


class Scored(NamedTuple):
    """Per-token statistics of completions; values outside `mask` mean nothing."""

    token_logps: Float[Tensor, "rows time"]
    entropy: Float[Tensor, "rows time"]
    is_top1: Bool[Tensor, "rows time"]
    mask: Bool[Tensor, "rows time"]
    hidden: Float[Tensor, "scored width"] | None
    """Last hidden states at the positions of the mask, row by row, if they were asked for."""


def score(model: Callable[..., Any], inputs: dict[str, Any], backbone: nn.Module | None = None) -> Scored:
    """Run the policy (the wrapped model, so that DDP sees the gradients), keeping the hidden states of `backbone`."""
    mask = inputs["labels"][:, 1:] != -100
    with fast_head(), last_hidden(backbone) as seen:
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
    last = slice(-mask.size(1), None)  # prompt-learning adapters put virtual tokens in front
    return Scored(
        outputs.log_probs[:, last],
        outputs.entropy[:, last].detach(),
        outputs.is_top1[:, last],
        mask,
        seen[0][:, :-1][:, last][mask] if seen else None,
    )


def summed(scored: Scored) -> Float[Tensor, " rows"]:
    """Log-probabilities of whole completions, in nats."""
    return scored.token_logps.masked_fill(~scored.mask, 0.0).sum(dim=1)


def freeze_reference(model: Any, peft_config: Any, where: str) -> None:
    """Give a policy that starts from a trained adapter a frozen copy of it, named "ref", as TRL's DPOTrainer does.

    Raises:
        ValueError: If there is no adapter, old or new: the reference would be gone after the first step.
    """
    if not isinstance(model, PeftModel):
        if peft_config is None:
            raise ValueError(
                f"{where}: the objective needs the reference, which is the model without its adapter; use LoRA"
            )
        return
    if "ref" in model.peft_config:
        return
    model.add_adapter("ref", model.peft_config[active_adapter(model)])
    copy_reference(model)


def completion_metrics(scored: Scored, inputs: dict[str, Any], addends: dict[str, Ratio]) -> dict[str, Ratio]:
    """Metrics of one batch as (numerator, denominator) per row; a metric is the ratio of their sums.

    `loss/*` are the addends of the loss, weights included. `nll` and `entropy` are in nats per token of the completion,
    `mean_token_accuracy` is the share of its tokens that the policy holds most likely.
    """
    each = torch.ones_like(scored.token_logps[:, 0])
    attention = inputs.get("attention_mask", torch.ones_like(inputs["labels"]))
    positions, read = each * attention.size(1), attention.sum(dim=1).to(each.dtype)
    tokens, correct = (part.sum(dim=1).to(each.dtype) for part in (scored.mask, scored.is_top1 & scored.mask))
    return {name: (value.detach(), per.detach()) for name, (value, per) in addends.items()} | {
        "nll": (nll(scored.token_logps.detach(), scored.mask), tokens),
        "entropy": ((scored.entropy * scored.mask).sum(dim=1), tokens),
        "mean_token_accuracy": (correct, tokens),
        "length": (tokens, each),
        "padding": (positions - read, positions),
        "computed_per_token": (positions, read),
        TOKENS: (read, torch.zeros_like(each)),
    }
