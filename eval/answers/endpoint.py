"""Has an OpenAI-compatible endpoint, and the reference that it is held against, answer prompts into files of responses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from align.data import load_data
from align.data.prompts import prompt_of, template_of
from align.errors import RunError
from align.files import digest_of, write_rows
from align.findings import printable
from align.judges.endpoint import Endpoint
from align.judges.from_recipe import permission
from align.models.loading import load_tokenizer
from align.recipe.loading import Generate, Recipe
from align.sampling.ask import Asking, ask, decoding_of
from align.sampling.endpoint_answers import endpoint_answers
from align.sampling.policy import reference_of
from eval.statistics.names import REF, REFERENCE

from .asking import asked_rows
from .files import read_responses

Rows = Sequence[Mapping[str, Any]]


def is_endpoint(name: str) -> bool:
    """Whether a name on the command line means an endpoint."""
    return name.startswith(("http://", "https://"))


def ask_endpoints(
    names: Sequence[str], models: Sequence[str], ref: str | None, recipe: Recipe, *, allow: Sequence[str], folder: Path
) -> tuple[list[str], dict[str, Any]]:
    """Files of responses in the place of endpoints, that of the reference last; and how they were asked, for a report.

    Args:
        names: URLs of endpoints, and files of responses.
        models: What each endpoint calls its model.
        ref: The reference's file; by default the first of `names` that is one, or else the recipe's reference answers.
        recipe: Its `eval.generate` says how to ask; its data hold the prompts, where there is no file.
        allow: What was given with `--allow`.
        folder: Where answers are kept.

    Raises:
        RunError: As `endpoint_of` and `endpoint_file` say, or if nothing could answer for the reference.
    """
    settings = recipe.eval.generate
    if settings is None:
        raise RunError("eval.generate: says how endpoints are asked; set eval.generate={prompts: 128}")
    urls = [name for name in names if is_endpoint(name)]
    endpoints = [endpoint_of(url, model, settings, allow) for url, model in zip(urls, models, strict=True)]
    files = [name for name in names if not is_endpoint(name)]
    ref = ref or (files.pop(0) if files else None)
    if ref is None and recipe.ref.kind == "cached":
        raise RunError("ref.kind=cached: the data's values cannot generate answers; name a file with ref=FILE")
    if ref is None:
        rows = asked_rows(load_data(recipe.data, rows=recipe.rows).eval, settings.prompts)
    else:
        rows = list(read_responses(Path(ref)).rows.values())
    named = [str(endpoint_file(endpoint, rows, settings.samples, folder)) for endpoint in endpoints]
    ref = ref or str(reference_file(recipe, rows, settings, folder))
    said = {name: {"url": one.url, "model": one.model} for name, one in zip(named, endpoints, strict=True)}
    decoding = {
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "samples": settings.samples,
    }
    return [*named, *files, ref], {"endpoints": said, "decoding": decoding}


def endpoint_of(url: str, model: str, settings: Generate, allow: Sequence[str]) -> Endpoint:
    """Where and how a subject is asked; the key is in the variable that `--allow VARIABLE@HOST` names, if one is.

    Raises:
        RunError: If it may not be asked, or cannot be.
    """
    host = permission({"url": url})
    allowed = [word for word in allow if word.rpartition("@")[2] == host]
    if not allowed:
        raise RunError(
            f"{printable(url)}: the prompts would be sent to {host!r}; if you agree, add --allow {host}, or with a key "
            f"--allow VARIABLE@{host}"
        )
    variable = allowed[0].rpartition("@")[0] or None
    try:
        return Endpoint(url, model, variable, temperature=settings.temperature, max_tokens=settings.max_new_tokens)
    except ValueError as error:
        raise RunError(str(error)) from None


def endpoint_file(endpoint: Endpoint, rows: Rows, samples: int, folder: Path) -> Path:
    """A file of what an endpoint answers; what it said once is kept beside it, and not asked again.

    Raises:
        RunError: If a prompt needs more than messages, or stays without an answer.
    """
    for number, row in enumerate(rows, start=1):
        if template_of(prompt_of(row)):
            raise RunError(
                f"{endpoint.url}: prompt {number} has tools or arguments of a chat template, which an endpoint is not given; "
                "leave such rows out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{_safe(endpoint.model)}-{digest_of([endpoint.url, endpoint.model])[:6]}"
    answers, failures = endpoint_answers(endpoint, rows, samples, folder / f"{name}-endpoint.jsonl")
    if failures:
        first = failures[0]
        raise RunError(
            f"{urlsplit(endpoint.url).netloc}: {len(failures)} of {len(rows) * samples} answers are missing (the first: prompt "
            f"{first.prompt + 1}: {printable(first.error, 300)}); evaluate again: only these are asked"
        )
    return _written(folder / name / f"{_safe(endpoint.model)}.jsonl", rows, answers)


def reference_file(recipe: Recipe, rows: Rows, settings: Generate, folder: Path) -> Path:
    """A file of what a recipe's reference, which is a model, answers."""
    asking = Asking(
        [prompt_of(row) for row in rows], decoding_of(settings), settings.samples, settings.batch_size, folder
    )
    found = ask(load_tokenizer(recipe.model), reference_of(recipe).load(), asking, REF, "the reference")
    return _written(folder / f"{REFERENCE}.jsonl", rows, [[answer.text for answer in row] for row in found])


def _written(path: Path, rows: Rows, answers: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(
        [{**row, "completions": list(given)} for row, given in zip(rows, answers, strict=True)], path, replace=True
    )
    return path


def _safe(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name).strip(".") or "_"
