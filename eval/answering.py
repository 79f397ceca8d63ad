"""Answers of policies and their reference: sampled or read from where an earlier evaluation kept them, then measured.

What is measured here needs the models: lengths in tokens and divergences. `eval.texts` measures what texts alone tell.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.recipe.loading import Generate

from .answers import stored_answers
from .generate import Answer, Decoding, Engine, Prompt, generate
from .measures import divergence_estimates
from .sampled import REF, Sampled
from .scoring import completion_logps
from .stats import Estimate
from .subjects import Subject, Use
from .texts import paired
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


def ask_all(subjects: Sequence[Subject], asking: Asking) -> Answers:
    """The answers of the reference, which the subjects share, and of each of them."""
    first = subjects[0]
    answers = {REF: ask(first, first.reference, asking, REF, "the reference")}
    for subject in subjects:
        answers[subject.name] = ask(subject, subject.policy, asking, subject.name, title(subject, first))
    return answers


def title(subject: Subject, first: Subject) -> str:
    """What a policy is called in messages."""
    return "the policy" if subject is first else subject.name


def ask(subject: Subject, use: Use, asking: Asking, name: str, who: str) -> list[list[Answer]]:
    """One model's answers; those that its file has are not sampled again.

    Raises:
        AnswersError: As `stored_answers`.
    """
    desc = f"answers of {who}"
    engine = None if asking.vllm is None else _engine(asking.vllm, use, subject, asking, desc)
    settings: dict[str, Any] = {"samples": asking.samples, "batch_size": asking.batch_size, "desc": desc}
    with use() as model:
        if asking.folder is None:
            return generate(model, subject.tokenizer, asking.prompts, asking.decoding, engine=engine, **settings)
        path = asking.folder / answers_file(name, asking.decoding, engine and engine.identity)
        return stored_answers(
            path, model, subject.tokenizer, asking.prompts, asking.decoding, engine=engine, **settings
        )


def _engine(vllm: VLLM, use: Use, subject: Subject, asking: Asking, desc: str) -> Engine:
    log = asking.folder / LOG_FILE if asking.folder is not None else Path(tempfile.mkdtemp()) / LOG_FILE
    return vllm.engine(use, subject.tokenizer, asking.decoding, batch_size=asking.batch_size, desc=desc, log=log)


def answers_file(name: str, decoding: Decoding, engine: dict[str, str] | None = None) -> str:
    """The file of a policy's answers: NAME-DIGEST.jsonl, of letters that are safe in a file name everywhere.

    The digest is of the decoding settings, of the engine if the model did not sample itself, and of the name where it had
    to be changed, so that none share a file.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-LONGEST_NAME:].lstrip(".-") or "_"
    identity = [vars(decoding), None if safe == name else name, *([engine] if engine else [])]
    return f"{safe}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}.jsonl"


def sampled_texts(rows: list[dict[str, Any]], answers: Answers) -> Sampled:
    """The texts of answers, the policies before the reference."""
    ordered = [*(who for who in answers if who != REF), REF]
    return Sampled(rows, {who: [[answer.text for answer in row] for row in answers[who]] for who in ordered})


def token_estimates(
    subjects: Sequence[Subject], answers: Answers, settings: Generate
) -> dict[str, dict[str, Estimate]]:
    """By policy: lengths in tokens and, unless answers are greedy, divergences from the reference, of first answers."""
    first = subjects[0]

    def scored(use: Use, who: str, rows: list[list[Answer]]) -> Any:
        with use() as model:
            return completion_logps(
                model, [(row[0].prompt_ids, row[0].completion_ids) for row in rows], pad_token_id=first.pad_token_id,
                batch_size=first.recipe.eval.batch_size, temperature=settings.temperature, desc=f"answers under {who}",
            )  # fmt: skip

    ref = answers[REF]
    ref_under_ref = scored(first.reference, "the reference", ref) if settings.temperature > 0 else None
    found = {}
    for subject in subjects:
        who, own = title(subject, first), answers[subject.name]
        found[subject.name] = paired("length_tokens", _lengths(own), _lengths(ref))
        if ref_under_ref is not None:
            found[subject.name] |= divergence_estimates(
                (scored(subject.policy, who, own), scored(first.reference, "the reference", own)),
                (scored(subject.policy, who, ref), ref_under_ref),
            )
    return found


def _lengths(answers: list[list[Answer]]) -> np.ndarray:
    return np.array([np.mean([len(answer.completion_ids) for answer in row]) for row in answers])


def template_digest(subject: Subject) -> str | None:
    """Digest of the chat template that prompts go through."""
    template = subject.tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None
