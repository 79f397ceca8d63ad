"""Log-probabilities of given completions under a model, for ranking and divergence estimates."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from align.scoring.reference_store import ReferenceStore, sequence_key

from .generate import Model, Prompt, prompt_ids
from .subjects import Subject

logger = logging.getLogger(__name__)

Sequences = Sequence[tuple[list[int], list[int]]]


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: Prompt
) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and of the completion after it, split where the two renderings part, as in training.

    The very first token always counts as prompt: nothing predicts it.

    Raises:
        ValueError: If nothing of the completion is left.
    """
    start = prompt_ids(tokenizer, prompt)
    if isinstance(prompt, str):
        text = str(completion)
        end = str(tokenizer.eos_token or "")
        encoded: Any = tokenizer(prompt + (text if text.endswith(end) else text + end))
    else:
        messages: Any = [*prompt, *completion]
        encoded = tokenizer.apply_chat_template(messages, return_dict=True)
    full = list(encoded["input_ids"])
    shared = next((i for i, (a, b) in enumerate(zip(start, full, strict=False)) if a != b), min(len(start), len(full)))
    shared = max(shared, 1)
    if shared >= len(full):
        raise ValueError(f"no token of the completion is left after the prompt: {completion!r}")
    return full[:shared], full[shared:]


def pair_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, chosen: Prompt, rejected: Prompt) -> Sequences:
    """Both answers of a pair after the same prompt ids: as in training, the earlier of their two splits is used."""
    sides = [completion_ids(tokenizer, prompt, completion) for completion in (chosen, rejected)]
    shared = min(len(start) for start, _ in sides)
    return [((start + end)[:shared], (start + end)[shared:]) for start, end in sides]


def completion_logps(
    model: Model,
    sequences: Sequences,
    *,
    pad_token_id: int,
    batch_size: int = 4,
    temperature: float = 1.0,
    desc: str = "scoring",
) -> list[Float[Tensor, " _tokens"]]:
    """Log-probability log π(y_t | x, y_<t) of every completion token, in nats, float32.

    Args:
        model: A causal language model; put adapters on or off before the call.
        sequences: (prompt ids, completion ids) pairs.
        pad_token_id: Padding, ignored by the attention mask.
        batch_size: Sequences per forward pass; the result does not depend on it beyond rounding.
        temperature: Logits are divided by it, to score what was sampled at that temperature.
        desc: Title of the progress bar.

    Returns:
        One tensor of shape (completion tokens,) per sequence, in the order given.

    Raises:
        ValueError: If a sequence has no prompt token: nothing would predict its first completion token.
    """
    if any(not prompt for prompt, _ in sequences):
        raise ValueError("every sequence needs at least one prompt token, to predict the first completion token from")
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]) + len(sequences[i][1]))
    results: list[Tensor] = [torch.empty(0)] * len(sequences)
    with tqdm(total=len(order), desc=desc, unit="answer") as bar, torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            rows = [sequences[i][0] + sequences[i][1] for i in batch]
            width = max(map(len, rows))
            ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows], device=model.device)
            attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
            first = min(len(sequences[i][0]) for i in batch)  # no logits for what is prompt in every row
            keep = width - first + 1
            logits = model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=keep).logits
            logps = (logits[:, :-1].float() / temperature).log_softmax(-1)
            picked = logps.gather(-1, ids[:, first:].unsqueeze(-1)).squeeze(-1).cpu()
            for row, i in enumerate(batch):
                begin = len(sequences[i][0]) - first
                results[i] = picked[row, begin : begin + len(sequences[i][1])]
            bar.update(len(batch))
    return results


def reference_store(subject: Subject) -> ReferenceStore:
    """Where the log-probabilities of a subject's reference are kept, so that comparing runs scores it once."""
    with subject.reference() as model:
        return ReferenceStore(
            {
                "weights": subject.ref_digest,
                "dtype": str(model.dtype),
                "mixed_precision": "no",
                "attention": str(model.config._attn_implementation),
                "device": model.device.type,
                "reduction": "sum",
            }
        )


def stored(
    store: ReferenceStore, sequences: Sequences, score: Callable[[Sequences], Float[np.ndarray, " missing"]]
) -> Float[np.ndarray, " sequences"]:
    """Summed log-probabilities from the store; `score` computes those that are missing, which are then kept.

    Args:
        store: Of the model that `score` uses.
        sequences: (prompt ids, completion ids) pairs.
        score: Given the missing sequences, their summed log-probabilities in nats.
    """
    keys = [sequence_key(*sequence) for sequence in sequences]
    values = store.get(keys)
    missing = {keys[i]: i for i in np.flatnonzero(np.isnan(values)).tolist()}
    if missing:
        store.add(list(missing), score([sequences[i] for i in missing.values()]))
        values = store.get(keys)
    logger.info("%d of %d answers were in %s", len(keys) - len(missing), len(keys), store.path)
    return values
