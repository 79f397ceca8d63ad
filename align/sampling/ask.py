"""Asks one model for answers: those that its file holds are read, the others are sampled and kept there."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from align.data.prompts import Chat, Prompt, beside
from align.data.prompts.control import appended
from align.data.prompts.revision import INSTRUCTION, revision_prompt
from align.errors import RunError
from align.models.use import Use
from align.recipe.loading import Generate
from align.tools import Calling

from .generate import Answer, Decoding, Engine, generate
from .store import FORMAT, prompt_digest, stored_answers
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
    revisions: int = 0
    """How often an answer is shown to the model as a draft and asked for anew."""
    instruction: str = INSTRUCTION
    """What the user says about a draft."""
    context: str = ""
    """What is written after each prompt."""
    calling: Calling | None = None
    """What is called while answers are written; the prompts are then made by it."""


def decoding_of(settings: Generate) -> Decoding:
    """How the recipe has answers sampled."""
    return Decoding(settings.max_new_tokens, settings.temperature, settings.seed)


def settings_of_flags(**settings: Any) -> Generate:
    """How answers are sampled, as a command line says it: fields of `eval.generate`.

    Raises:
        RunError: Naming the flag that is out of range.
    """
    try:
        return Generate(prompts=1, **settings)
    except ValueError as error:
        name, colon, why = str(error).partition(":")
        raise RunError(f"--{name.replace('_', '-')}{colon}{why}") from None


def ask(tokenizer: PreTrainedTokenizerBase, use: Use, asking: Asking, name: str, who: str) -> list[list[Answer]]:
    """One model's answers, revised as often as is asked; those that its file has are not sampled again.

    Raises:
        AnswersError: As `stored_answers`.
    """
    return ask_by_revision(tokenizer, use, asking, name, who)[-1]


def ask_by_revision(
    tokenizer: PreTrainedTokenizerBase, use: Use, asking: Asking, name: str, who: str
) -> list[list[list[Answer]]]:
    """One model's answers after 0, 1, 2 and more revisions: [revisions][prompt][sample].

    A revision is an answer to the prompt, the draft and the instruction, whose own prompt that is. Source: Choi et al. 2024,
    Self-Improving Robust Preference Optimization (arXiv:2406.01660).

    Raises:
        AnswersError: As `stored_answers`.
    """
    if asking.context:
        asking = asking._replace(prompts=[_in_context(prompt, asking.context) for prompt in asking.prompts], context="")
    desc, calling = f"answers of {who}", asking.calling
    if calling is not None and (asking.vllm is not None or asking.revisions):
        raise RunError(
            f"{who}: calls tools, which {'revisions' if asking.revisions else 'vLLM'} cannot be sampled with"
        )
    engine = None if asking.vllm is None else _engine(asking.vllm, use, tokenizer, asking, desc)
    settings: dict[str, Any] = {"samples": asking.samples, "batch_size": asking.batch_size, "desc": desc}
    identity = engine.identity if engine is not None else calling and {"tools": calling.digest}
    path = asking.folder and asking.folder / answers_file(name, asking.decoding, identity)
    with use() as model:

        def sampled(prompts: Sequence[Prompt], samples: int) -> list[list[Answer]]:
            writer = engine
            if calling is not None:
                from .turns import calling_engine  # noqa: PLC0415 - it loads TRL's trainer

                writer = calling_engine(
                    calling, model, tokenizer, prompts, asking.decoding, batch_size=asking.batch_size, desc=desc
                )
            asked = settings | {"samples": samples, "engine": writer}
            if path is None:
                return generate(model, tokenizer, prompts, asking.decoding, **asked)
            return stored_answers(path, model, tokenizer, prompts, asking.decoding, **asked)

        stages = [sampled(asking.prompts, asking.samples)]
        for _ in range(asking.revisions):
            stages.append(_revised(stages[-1], asking, sampled))
    return stages


def _in_context(prompt: Prompt, context: str) -> Prompt:
    return rendered_as(prompt, appended(prompt, context))


def rendered_as(prompt: Prompt, made: Any) -> Prompt:
    """What was made of a prompt, with what its chat template is given."""
    return Chat(made, prompt.template, prompt.row) if isinstance(prompt, Chat) and beside(prompt) else made


def _revised(
    drafts: list[list[Answer]], asking: Asking, sampled: Callable[[Sequence[Prompt], int], list[list[Answer]]]
) -> list[list[Answer]]:
    """An answer to each draft; drafts of a prompt that are alike get samples of their own."""
    prompts: dict[str, Prompt] = {}
    places: dict[str, list[tuple[int, int]]] = {}
    for i, (prompt, row) in enumerate(zip(asking.prompts, drafts, strict=True)):
        for k, draft in enumerate(row):
            shown = draft.text if isinstance(prompt, str) else [{"role": "assistant", "content": draft.text}]
            wanted = rendered_as(prompt, revision_prompt(prompt, shown, asking.instruction))
            key = prompt_digest(wanted)
            prompts[key] = wanted
            places.setdefault(key, []).append((i, k))
    found: dict[tuple[int, int], Answer] = {}
    for alike in sorted({len(at) for at in places.values()}):
        keys = [key for key, at in places.items() if len(at) == alike]
        for key, answers in zip(keys, sampled([prompts[key] for key in keys], alike), strict=True):
            found |= zip(places[key], answers, strict=True)
    return [[found[i, k] for k in range(len(row))] for i, row in enumerate(drafts)]


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
