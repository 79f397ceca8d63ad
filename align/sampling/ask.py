"""Asks one model for answers: those that its file holds are read, the others are sampled and kept there."""

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from align.data.prompts import Prompt
from align.models.use import Use
from align.recipe.loading import Generate

from .generate import Answer, Decoding, Engine, generate
from .store import FORMAT, stored_answers
from .vllm_engine import LOG_FILE, VLLM

LONGEST_NAME = 60
Answers = dict[str, list[list[Answer]]]
"""By the name of a policy or "ref": [prompt][sample]."""


class Asking(NamedTuple):
    """What everybody is asked, and where the answers are kept."""

    prompts: Sequence[Prompt]
    decoding: Decoding
    samples: int
    batch_size: int
    folder: Path | None
    """None keeps nothing."""
    vllm: VLLM | None = None
    """What samples, if not the models themselves."""


def decoding_of(settings: Generate) -> Decoding:
    """How the recipe has answers sampled."""
    return Decoding(settings.max_new_tokens, settings.temperature, settings.seed)


def ask(tokenizer: PreTrainedTokenizerBase, use: Use, asking: Asking, name: str, who: str) -> list[list[Answer]]:
    """One model's answers; those that its file has are not sampled again.

    Raises:
        AnswersError: As `stored_answers`.
    """
    desc = f"answers of {who}"
    engine = None if asking.vllm is None else _engine(asking.vllm, use, tokenizer, asking, desc)
    settings: dict[str, Any] = {"samples": asking.samples, "batch_size": asking.batch_size, "desc": desc}
    with use() as model:
        if asking.folder is None:
            return generate(model, tokenizer, asking.prompts, asking.decoding, engine=engine, **settings)
        path = asking.folder / answers_file(name, asking.decoding, engine and engine.identity)
        return stored_answers(path, model, tokenizer, asking.prompts, asking.decoding, engine=engine, **settings)


def _engine(vllm: VLLM, use: Use, tokenizer: PreTrainedTokenizerBase, asking: Asking, desc: str) -> Engine:
    log = asking.folder / LOG_FILE if asking.folder is not None else Path(tempfile.mkdtemp()) / LOG_FILE
    return vllm.engine(use, tokenizer, asking.decoding, batch_size=asking.batch_size, desc=desc, log=log)


def answers_file(name: str, decoding: Decoding, engine: dict[str, str] | None = None) -> str:
    """The file of a policy's answers: NAME-DIGEST.jsonl, of letters that are safe in a file name everywhere.

    The digest is of the decoding settings, of the engine if the model did not sample itself, and of the name where it had
    to be changed, so that none share a file.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-LONGEST_NAME:].lstrip(".-") or "_"
    identity = [FORMAT, vars(decoding), None if safe == name else name, *([engine] if engine else [])]
    return f"{safe}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}.jsonl"
