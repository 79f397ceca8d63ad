"""Measures what a model says of the rows that it has learnt from: their losses, and how near their prompts are to others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from align.data.prompts import prompt_of
from align.models.use import Use
from align.scoring.completions import completion_ids, completion_logps

Tokens = tuple[list[int], list[int]]


def tokens_of(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> list[Tokens | None]:
    """Prompt's and completion's token ids of each row as training cuts them; None where no token of the completion is left."""
    found: list[Tokens | None] = []
    for row in rows:
        try:
            ids, begin = completion_ids(tokenizer, prompt_of(row), row["completion"], max_length)
            found.append((ids[:begin], ids[begin:]))
        except ValueError:
            found.append(None)
    return found


def losses(
    use: Use, tokens: Sequence[Tokens | None], *, pad_token_id: int, batch_size: int, desc: str
) -> Float[np.ndarray, " rows"]:
    """Negative log-likelihood of each completion, nats per token; NaN where there is none. Shape (rows,)."""
    some = [each for each in tokens if each is not None]
    with use() as model:
        logps = iter(completion_logps(model, some, pad_token_id=pad_token_id, batch_size=batch_size, desc=desc))
    return np.array([np.nan if each is None else -float(next(logps).double().mean()) for each in tokens])


def vectors_of(
    use: Use, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int | None, batch_size: int
) -> Float[np.ndarray, "texts width"]:
    """Of each text the mean over its tokens of the model's last hidden states, without a chat template.

    Causal states are much alike, so that all cosines are near 1: what counts is which are smaller than the others. Middo
    takes them in half precision; here they are added up in single precision, one length at a time, so that no padding is
    read.
    """
    ids: list[list[int]] = [list(tokenizer(text)["input_ids"])[:max_length] or [0] for text in texts]
    made: list[np.ndarray] = [np.empty(0)] * len(texts)
    by_length: dict[int, list[int]] = {}
    for index, each in enumerate(ids):
        by_length.setdefault(len(each), []).append(index)
    with use() as model, torch.inference_mode():
        for alike in by_length.values():
            for start in range(0, len(alike), batch_size):
                batch = alike[start : start + batch_size]
                inputs = torch.tensor([ids[index] for index in batch], device=model.device)
                states: Any = model(input_ids=inputs, use_cache=False, output_hidden_states=True, logits_to_keep=1)
                means = states.hidden_states[-1].float().mean(dim=1).cpu().numpy()
                for index, vector in zip(batch, means, strict=True):
                    made[index] = vector
    return np.stack(made)
