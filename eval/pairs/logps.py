"""Scores given completions under a model, for rankings and divergences, and keeps the reference's values."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from align.data.prompts import Prompt
from align.models.identity import log_probability_identity
from align.scoring import completions
from align.scoring.completions import Sequences, completion_logps, pair_ids
from align.scoring.reference_store import ReferenceStore, sequence_key
from eval.subjects import Subject

logger = logging.getLogger(__name__)

__all__ = [
    "Sequences",
    "completion_ids",
    "completion_logps",
    "pair_ids",
    "reference_store",
    "shortest_context",
    "stored",
]


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: Prompt
) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and of the completion after it; see `align.scoring.completions.completion_ids`."""
    ids, begin = completions.completion_ids(tokenizer, prompt, completion)
    return ids[:begin], ids[begin:]


def shortest_context(subjects: Sequence[Subject]) -> int | None:
    """Positions that the policies and the reference were all made for; None if no model names a number."""
    found: list[int] = []
    for use in (subjects[0].reference, *(subject.policy for subject in subjects)):
        with use() as model:
            positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None:
            found.append(int(positions))
    return min(found, default=None)


def reference_store(subject: Subject) -> ReferenceStore:
    """Where the log-probabilities of a subject's reference are kept, so that comparing runs scores it once."""
    with subject.reference() as model:
        return ReferenceStore(log_probability_identity(model))


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
