"""PoFT's scoring pass: how likely aligned models find each completion, as the column `aligned_logp`.

Every model reads a row with its own tokenizer and chat template, so that summed log-probabilities of two models are not
comparable; means over the tokens of each are, and these are averaged (Fan et al. 2024, arXiv:2412.12865). No aligned
model is needed while training.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase
from trl import ModelConfig
from trl.data_utils import common_prefix_length

from align.models import load_model, load_tokenizer
from align.rundir import write_text

COLUMN = "aligned_logp"


def aligned_logps(
    models: Iterable[tuple[Any, PreTrainedTokenizerBase]],
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 4,
    max_length: int | None = None,
) -> Float[np.ndarray, " rows"]:
    """Length-mean log-probability of each completion, averaged over the models, in nats per token.

    Args:
        models: Causal language models with their tokenizers. A generator may load one after the other.
        rows: `prompt` and `completion`, both strings or both lists of messages.
        batch_size: Rows per forward pass; the result does not depend on it beyond rounding.
        max_length: Tokens, of each model, after which a row is cut.

    Raises:
        ValueError: If there is no model, or no token of a completion is left.
    """
    scores = [mean_logps(*model, rows, batch_size=batch_size, max_length=max_length) for model in models]
    if not scores:
        raise ValueError("no aligned model to score with; name at least one")
    return np.mean(scores, axis=0)


def mean_logps(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 4,
    max_length: int | None = None,
) -> Float[np.ndarray, " rows"]:
    """Log-probability per token of each completion under one model, in nats. The model is put in evaluation mode.

    Raises:
        ValueError: If no token of a completion is left.
    """
    model.eval()
    encoded = [completion_ids(tokenizer, row["prompt"], row["completion"], max_length) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i][0]))
    means = np.empty(len(rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # never attended to
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = max(len(encoded[i][0]) for i in batch)
        ids = torch.tensor([encoded[i][0] + [pad] * (longest - len(encoded[i][0])) for i in batch])
        mask = torch.tensor([[1] * len(encoded[i][0]) + [0] * (longest - len(encoded[i][0])) for i in batch])
        first = min(encoded[i][1] for i in batch)  # no logits for what is prompt in every row
        fed = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
        with torch.inference_mode():
            logits = model(**fed, use_cache=False, logits_to_keep=longest - first + 1).logits
            for row, i in enumerate(batch):
                tokens, begin = encoded[i]
                answer = fed["input_ids"][row, begin : len(tokens)]
                predicting = logits[row, begin - first : len(tokens) - first].float().log_softmax(-1)
                means[i] = predicting.gather(-1, answer[:, None]).double().mean().item()
    return means


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, completion: Any, max_length: int | None = None
) -> tuple[list[int], int]:
    """Token ids of a row and where its completion begins, as in training: where the prompt alone and the whole part.

    Raises:
        ValueError: If no token of the completion is left.
    """
    if isinstance(prompt, str):
        end = str(tokenizer.eos_token or "")
        alone: Any = tokenizer(text=prompt)["input_ids"]
        whole: Any = tokenizer(text=prompt + completion + end * (not completion.endswith(end)))["input_ids"]
    else:
        template: Any = tokenizer.apply_chat_template
        alone = template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        whole = template([*prompt, *completion], return_dict=True)["input_ids"]
    begin = max(common_prefix_length(alone, whole), 1)  # nothing predicts the very first token
    ids = list(whole[:max_length])
    if begin >= len(ids):
        raise ValueError(f"no token of the completion is left after the prompt: {completion!r}")
    return ids, begin


def score_file(
    names: Sequence[str],
    source: Path,
    target: Path,
    *,
    dtype: str = "bfloat16",
    batch_size: int = 4,
    max_length: int | None = None,
) -> None:
    """Write the rows of a JSON Lines file with the column `aligned_logp`; models are loaded one after the other.

    Args:
        names: Aligned models, named as in a recipe's `model.model_name_or_path`.
        source: Rows of `prompt` and `completion`; `.gz` is read too.
        target: Where to write; it is whole or not there.
        dtype: Of the models' weights.
        batch_size: Rows per forward pass.
        max_length: Tokens after which a row is cut; that of the training run.

    Raises:
        ValueError: If a row cannot be scored.
    """
    raw = source.read_bytes()
    text = (gzip.decompress(raw) if source.suffix == ".gz" else raw).decode()
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    values = aligned_logps(_loaded(names, dtype), rows, batch_size=batch_size, max_length=max_length)
    scored = [row | {COLUMN: float(value)} for row, value in zip(rows, values, strict=True)]
    write_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in scored))


def _loaded(names: Sequence[str], dtype: str) -> Iterator[tuple[Any, PreTrainedTokenizerBase]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in names:
        config = ModelConfig(model_name_or_path=name, dtype=dtype)
        loaded: Any = load_model(config)
        yield loaded.to(device), load_tokenizer(config)
