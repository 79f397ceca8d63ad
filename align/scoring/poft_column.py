"""Scores, for PoFT, how likely aligned models find each completion, as the column `aligned_logp`.

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

from align.files import write_text
from align.models.loading import load_model, load_tokenizer

from .completions import completion_ids, completion_logps

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
    sequences = [(ids[:begin], ids[begin:]) for ids, begin in encoded]
    pad: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # never attended to
    logps = completion_logps(model, sequences, pad_token_id=pad, batch_size=batch_size)
    return np.array([each.double().mean().item() for each in logps])


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
