"""Keeps answers in a file that only grows: a killed run continues where it stopped, to the same answers.

The first line says what determines the answers: decoding settings, digests of chat template, tokenizer and model. Each
further line is one answer, with the digest of its prompt and that of the first line. Every line ends with its own
checksum. Lines are written batch by batch and synced; a killed run loses at most the batch it was in.

A file is never repaired by guessing: what a kill leaves (a last line without its end) is cut off and generated again,
anything else that is not right is an error that names the line.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.prompts import Prompt, beside
from align.errors import RunError
from align.files import append_synced, digest_of
from align.models.identity import model_identity, text_identity
from align.models.stopping import stop_ids
from align.models.use import Model
from align.scoring.completions import prompt_ids

from .generate import Answer, Decoding, Engine, Job, Turns, answer_of, sampled_batches

FORMAT = "alignkit answers 2"
CHECKSUM = "check"
Key = tuple[str, int]


class AnswersError(RunError):
    """A file of answers that cannot be used as asked. The message says where and what to do."""


class Stored(NamedTuple):
    """One answer as the file has it."""

    completion_ids: list[int]
    text: str
    finished: bool
    turns: dict[str, Any] | None = None
    """Of an answer that may call tools: what `Turns` holds, and `prompt_ids`, which its environment had a part in."""


class AnswerFile(NamedTuple):
    """What a file of answers holds."""

    settings: dict[str, Any]
    """The first line: `decoding`, `template_sha256`, `tokenizer_sha256` and `model_sha256`."""
    answers: dict[Key, Stored]
    """By `prompt_digest` and number of the sample."""


def stored_answers(
    path: Path,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    samples: int = 1,
    batch_size: int = 32,
    desc: str = "generating",
    engine: Engine | None = None,
) -> list[list[Answer]]:
    """The answers of `generate`, of which those in the file are read and the others are added to it; it is said how many.

    The file may hold answers to other prompts and further samples. Answers from another kind of device may differ by
    rounding: the device is not part of what is compared.

    Args:
        path: The file; made with its folder if it is missing.
        model: As for `generate`; adapters that are on are part of its digest.
        tokenizer: As for `generate`.
        prompts: As for `generate`.
        decoding: As for `generate`.
        samples: Answers per prompt.
        batch_size: Answers sampled, and written, together.
        desc: Title of the progress bar.
        engine: As for `generate`; part of what is compared.

    Raises:
        AnswersError: If the file is of another model, engine, tokenizer, template or decoding, a line of it is damaged, or
            another process is writing it.
    """
    settings = answer_settings(model, tokenizer, decoding, engine)
    header = _line(settings)
    digests = [prompt_digest(prompt) for prompt in prompts]
    encoded, stops = [prompt_ids(tokenizer, prompt) for prompt in prompts], stop_ids(tokenizer, model)
    with _writing(path) as file:
        content = file.read()
        if header.startswith(content) and content != header:
            file.truncate(0)
            append_synced(path, header)
            content = header
        found, whole = _parse(content, path)
        _check_settings(found.settings, settings, path)
        file.truncate(whole)
        answers = dict(found.answers)
        wanted = {(digest, k): Job(index, k) for index, digest in enumerate(digests) for k in range(samples)}
        jobs = [job for key, job in wanted.items() if key not in answers]
        if len(jobs) < len(wanted):
            tqdm.write(f"{len(wanted) - len(jobs)} {desc} read from {path}")
        for batch in sampled_batches(
            model, tokenizer, encoded, jobs, decoding, batch_size=batch_size, desc=desc, engine=engine
        ):
            rows = {(digests[job.prompt], job.sample): answer for job, answer in batch.items()}
            append_synced(path, b"".join(_answer_line(key, answer, header) for key, answer in rows.items()))
            answers |= {key: _stored(answer) for key, answer in rows.items()}

    def answer(ids: list[int], stored: Stored) -> Answer:
        if stored.turns is None:
            return answer_of(tokenizer, stops, ids, stored.completion_ids)
        asked, turns = stored.turns["prompt_ids"], {name: stored.turns[name] for name in Turns._fields}
        return Answer(asked, stored.completion_ids, stored.text, stored.finished, Turns(**turns))

    return [
        [answer(ids, answers[digest, k]) for k in range(samples)] for digest, ids in zip(digests, encoded, strict=True)
    ]


def read_answers(path: Path) -> AnswerFile:
    """All whole answers of a file, verified. A last line that was cut short is left out.

    Raises:
        AnswersError: If it is no file of answers, or a line of it is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnswersError(f"{path}: {error.strerror}; generate the answers first") from error
    return _parse(content, path)[0]


def answer_settings(
    model: Model, tokenizer: PreTrainedTokenizerBase, decoding: Decoding, engine: Engine | None = None
) -> dict[str, Any]:
    """What determines the answer to a prompt, besides rounding: the first line of a file."""
    stops = stop_ids(tokenizer, model)
    return {
        "format": FORMAT,
        "decoding": vars(decoding),
        **({} if stops == [tokenizer.eos_token_id] else {"stops": stops}),
        **({} if engine is None else {"engine": engine.identity}),
        **text_identity(tokenizer),
        "model_sha256": digest_of(model_identity(model)),
    }


def prompt_digest(prompt: Prompt) -> str:
    """Digest of a prompt as it is given, before the chat template, and of what that is given besides."""
    given = beside(prompt)
    return digest_of([prompt, *given] if given else prompt)


def _check_settings(found: dict[str, Any], expected: dict[str, Any], path: Path) -> None:
    now = json.loads(json.dumps(expected))
    other = [name for name in {**now, **found} if found.get(name) != now.get(name)]
    if other:
        shown = "; ".join(f"{name}: {found.get(name)} in the file, {now.get(name)} now" for name in other)
        raise AnswersError(f"{path}: its answers were made otherwise ({shown}); use another file, or delete this one")


def _parse(content: bytes, path: Path) -> tuple[AnswerFile, int]:
    """What whole lines say, and how many bytes they are."""
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].split(b"\n")[:-1]
    settings = _checked(lines[0]) if lines else None
    if settings is None or settings.get("format") != FORMAT:
        raise AnswersError(f"{path}: line 1 is not that of a file of answers, or is damaged; use another file")
    header, answers = _short(lines[0] + b"\n"), {}
    for number, line in enumerate(lines[1:], start=2):
        row = _checked(line)
        if row is None:
            raise AnswersError(f"{path}: line {number} is damaged; delete it, and its answer is generated again")
        if row["settings"] != header:
            raise AnswersError(f"{path}: line {number} is of another file; delete it")
        key = (row["prompt_sha256"], row["sample"])
        stored = Stored(row["completion_ids"], row["text"], row["finished"], row.get("turns"))
        if answers.setdefault(key, stored) != stored:
            raise AnswersError(f"{path}: line {number} has another answer to a prompt of an earlier line; delete one")
    return AnswerFile(settings, answers), whole


def _checked(line: bytes) -> dict[str, Any] | None:
    """A line's content, or None unless it is to the byte what was written."""
    try:
        row = json.loads(line)
        row.pop(CHECKSUM)
        return row if _line(row) == line + b"\n" else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps({**row, CHECKSUM: digest_of(row)[:16]}).encode() + b"\n"


def _answer_line(key: Key, answer: Answer, header: bytes) -> bytes:
    row = {"prompt_sha256": key[0], "sample": key[1], "settings": _short(header)}
    stored = _stored(answer)
    return _line(row | {name: value for name, value in stored._asdict().items() if value is not None})


def _stored(answer: Answer) -> Stored:
    turns = answer.turns and {"prompt_ids": answer.prompt_ids, **answer.turns._asdict()}
    return Stored(answer.completion_ids, answer.text, answer.finished, turns)


def _short(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()[:16]


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """The file for one writer, at its beginning; what is written goes to its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AnswersError(f"{path}: another process is writing it; wait for it, or use another file") from error
        file.seek(0)
        yield file
