"""Reads responses that are stored already: files of prompts and answers in place of models.

One JSON object a line with `prompt` (text or messages) and `response` (text), or AlpacaEval's `instruction` and `output`;
a JSON array of such objects is read too, and so is what `alignkit sample` writes. Several responses to one prompt are its samples. Files are matched by prompt.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import RunError
from align.findings import printable
from eval.statistics.names import REF

from .table import Sampled

SUFFIXES = (".jsonl", ".json")
KEYS = (("prompt", "response"), ("instruction", "output"))
OF_SAMPLES = ("completions", "finished", "sources", "rewards", "preferences")
SHOWN = 60


class Responses(NamedTuple):
    """What one file holds, by prompt in the order of the file."""

    path: Path
    rows: dict[str, dict[str, Any]]
    """By the prompt as JSON: `prompt`, and the further columns of its first line."""
    texts: dict[str, list[str]]
    """Likewise, the responses to it."""
    sha256: str


def is_responses(name: str) -> bool:
    """Whether a name on the command line means a file of responses."""
    return name.endswith(SUFFIXES) and not Path(name).is_dir()


def read_responses(path: Path) -> Responses:
    """All responses of a file.

    Raises:
        RunError: If the file cannot be read, or a line of it is no response; it names file and line.
    """
    rows: dict[str, dict[str, Any]] = {}
    texts: dict[str, list[str]] = {}
    for where, value in _objects(path):
        for each in _one_by_one(value):
            prompt, text, further = _response(each, where)
            key = json.dumps(prompt)
            rows.setdefault(key, {"prompt": prompt, **further})
            texts.setdefault(key, []).append(text)
    if len(rows) < 2:
        raise RunError(f"{path}: an interval needs responses to at least 2 different prompts, got {len(rows)}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Responses(path, rows, texts, digest)


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    """Each object with where it is."""
    try:
        with path.open("rb") as file:
            array = file.read(1) == b"["
            file.seek(0)
            if array:
                values = _parsed(file.read(), f"{path}")
                yield from ((f"{path}: item {number}", value) for number, value in enumerate(values, start=1))
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}: line {number}", _parsed(line, f"{path}: line {number}")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        cut = "" if content.endswith(b"\n") else "; it is the last and has no end, so the file may be truncated"
        raise RunError(f"{where}: is no JSON ({printable(str(error), SHOWN)}){cut}; write the file again") from None


def _one_by_one(value: Any) -> list[Any]:
    """The responses of an object; `alignkit sample` writes all completions of a prompt into one."""
    if not isinstance(value, dict) or not isinstance(value.get("completions"), list) or "response" in value:
        return [value]
    further = {key: item for key, item in value.items() if key not in OF_SAMPLES}
    return [further | {"response": text} for text in value["completions"]]


def _response(value: Any, where: str) -> tuple[Any, str, dict[str, Any]]:
    names = next((names for names in KEYS if isinstance(value, dict) and all(name in value for name in names)), None)
    if names is None:
        found = f"the keys {', '.join(map(str, value))}" if isinstance(value, dict) else type(value).__name__
        raise RunError(
            f"{where}: must be an object with prompt and response (or instruction and output), got "
            f"{printable(found, SHOWN)}"
        )
    prompt, text = (value[name] for name in names)
    if not isinstance(text, str):
        raise RunError(f"{where}: {names[1]} must be text, got {type(text).__name__}")
    if not _is_prompt(prompt):
        raise RunError(f"{where}: {names[0]} must be text, or messages with role and content, and not empty")
    return prompt, text, {key: item for key, item in value.items() if key not in names}


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return bool(prompt)
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(
            isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
            for message in prompt
        )
    )


def matched(policies: Sequence[Responses], ref: Responses) -> tuple[Sampled, dict[str, str]]:
    """Files as answers to the prompts of the first, and the name of each by its path.

    Raises:
        RunError: If a prompt of one file is missing in another, or has another number of responses there.
    """
    first, *others = [*policies, ref]
    paths = [str(file.path) for file in (first, *others)]
    if len(set(paths)) < len(paths):
        raise RunError(f"{', '.join(paths)}: a file is named twice; name each once")
    for other in others:
        for one, two in ((first, other), (other, first)):
            missing = [key for key in one.texts if key not in two.texts]
            if missing:
                raise RunError(
                    f"{two.path}: no response to {len(missing)} of the prompts in {one.path}; the first: "
                    f"{printable(missing[0], SHOWN)}"
                )
    samples = len(next(iter(first.texts.values())))
    for file in (first, *others):
        for key, texts in file.texts.items():
            if len(texts) != samples:
                raise RunError(
                    f"{file.path}: {len(texts)} responses to {printable(key, SHOWN)}, where {samples} are expected: "
                    "every prompt needs as many, in every file"
                )
    names = names_of([file.path for file in (first, *others)])
    answers = {names[str(file.path)]: [file.texts[key] for key in first.rows] for file in policies}
    return Sampled(list(first.rows.values()), answers | {REF: [ref.texts[key] for key in first.rows]}), names


def names_of(paths: Sequence[Path]) -> dict[str, str]:
    """What files are called: their names without the suffix, or where these are not different, their paths."""
    short = {str(path): path.stem for path in paths}
    distinct = len(set(short.values())) == len(short) and REF not in short.values()
    return short if distinct else {path: path for path in short}
