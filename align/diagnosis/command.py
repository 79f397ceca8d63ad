"""Diagnoses, for `alignkit data diagnose`, the rows that a run has learnt from; drops or rewrites those that are flagged."""

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from align.commands.score import read_by
from align.data.loading import load_data
from align.data.making.diagnosis import FLAGS, HARD, LONELY, POOR, Figures, Limits, flags, limits, nearest
from align.errors import RunError
from align.files import check_writable, refuse_out, write_rows
from align.judges.endpoint import Endpoint
from align.judges.from_scores import refuse_missing, scorers_of
from align.judges.scoring import score_rows
from align.models.loading import load_tokenizer
from align.models.use import Use
from align.own_code import allow_file_argument
from align.recipe.loading import load_recipe
from align.rewards.texts import question_of
from align.runs.contents import RECIPE_FILE
from align.sampling.answer_file import KEPT
from align.sampling.ask import decoding_of, settings_of_flags
from align.sampling.endpoint_answers import endpoint_of
from align.sampling.generate import Decoding
from align.sampling.policy import beginning_of, policy_of

from .asked import Asked, endpoint_asked, policy_asked, ratings, rewritten
from .figures import losses, tokens_of, vectors_of

ITSELF, NOBODY = "itself", "none"
RATING = Decoding(max_new_tokens=8, temperature=0.0)


class Diagnosed(NamedTuple):
    """The rows of a run with their figures, and who trained on them."""

    rows: list[dict[str, Any]]
    figures: Figures
    near: np.ndarray
    """Of each row the indices of its neighbours. Shape (rows, 2 or fewer)."""


def main(argv: Sequence[str]) -> int:
    """Flag the rows of a supervised run that stay hard, stand alone or are poor, as Middo does; drop or rewrite them."""
    options = _arguments().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    written = [path for path in (options.out, options.drop, options.rewrite) if path is not None]
    for path in written:
        check_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_out(path)
    if len({path.resolve() for path in written}) < len(written):
        raise RunError(f"--out, --drop, --rewrite: {written[0]} is named twice; name another file")
    sigmas = _sigmas(options.sigmas)
    names = ("max_new_tokens", "temperature", "seed", "batch_size")
    decoding = decoding_of(settings_of_flags(**{name: getattr(options, name) for name in names}))
    endpoint = _endpoint(options)
    tokenizer, use, found = _diagnosed(options)
    beyond = limits(found.figures, sigmas)
    flagged = flags(found.figures, beyond)
    files, told = {options.out: _told_rows(found, flagged)}, [_told(options.out, found.figures, beyond, flagged)]
    if options.drop is not None:
        kept = [row for row, own in zip(found.rows, flagged, strict=True) if not own]
        if not kept:
            raise RunError(f"--drop: all {len(flagged)} rows are flagged, and none would be left; raise --sigmas")
        files[options.drop] = [_said(row) for row in kept]
        told.append(f"{options.drop}: {len(kept)} of {len(flagged)} rows are kept")
    if options.rewrite is not None:
        made = rewritten(found.rows, flagged, found.near.tolist(), _writer(options, decoding, tokenizer, use, endpoint))
        files[options.rewrite] = [_said(row) for row in made.rows]
        count = sum(map(bool, flagged)) - len(made.failed)
        failed = f"; {len(made.failed)} stay as they were, for no text came" if made.failed else ""
        told.append(f"{options.rewrite}: {count} of {len(flagged)} rows are rewritten{failed}")
    for path, rows in files.items():  # all at the end: what was asked is kept, and the same command goes on
        write_rows(rows, path)
    print("\n".join(told))  # noqa: T201 - the command's result
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alignkit data diagnose", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("run", help="a finished run of a method that learns from completions")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as data.train.path=FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="every row with its figures and flags")  # fmt: skip
    parser.add_argument("--sigmas", default="", metavar="NAME=S,...", help=f"standard deviations from the mean from which a row is {', '.join(FLAGS)}; default: 1 each")  # fmt: skip
    parser.add_argument("--by", default=ITSELF, metavar="itself|none|REWARD|NAME={...}", help="who rates the rows; default: the policy itself; else as for `alignkit score`")  # fmt: skip
    parser.add_argument("--drop", type=Path, metavar="FILE.jsonl", help="write the rows without a flag")
    parser.add_argument("--rewrite", type=Path, metavar="FILE.jsonl", help="write all rows, those with a flag rewritten by the policy, or the endpoint of --writer")  # fmt: skip
    parser.add_argument("--writer", metavar="URL", help="an endpoint that rewrites; with --model")
    parser.add_argument("--model", help="the endpoint's name of the model")
    parser.add_argument("--key-variable", metavar="NAME", help="environment variable that holds the endpoint's key")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="of what is rewritten; default: 256")
    parser.add_argument("--temperature", type=float, default=1.0, help="likewise; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="likewise; default: 0")
    parser.add_argument("--batch-size", type=int, default=8, help="rows at a time; default: 8")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE:FUNCTION|[VARIABLE@]HOST")
    allow_file_argument(parser)
    return parser


def _diagnosed(options: argparse.Namespace) -> tuple[PreTrainedTokenizerBase, Use, Diagnosed]:
    """All figures, and the policy with its tokenizer; every model is loaded once, and one at a time."""
    run = Path(options.run)
    if not (run / RECIPE_FILE).is_file():
        raise RunError(f"{run}: no {RECIPE_FILE} there, so not a run directory; name a finished run")
    recipe = load_recipe(run / RECIPE_FILE, options.overrides)
    if recipe.rounds is not None:
        raise RunError(
            f"{run}: has rounds, each of which learns from rows of its own; name one, such as {run}/round-1/train"
        )
    if recipe.rows != "completions":
        raise RunError(
            f"{run}: method {recipe.method!r} learns from {recipe.rows}, and rows of completions alone are diagnosed"
        )
    trained = policy_of(options.run, options.overrides)
    config = None if options.by in (ITSELF, NOBODY) else read_by([options.by], None, "win_rate")
    scorers = [] if config is None else scorers_of(
        config, recipe.model, where="--by", allow=options.allow, ledgers=options.out.parent / f"{options.out.stem}-judges"
    )  # fmt: skip
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts).train
    rows = [dict(row) for row in data.to_list()]
    if config is not None:
        refuse_missing(config, rows[0], options.run)
    tokenizer, size = load_tokenizer(recipe.model), options.batch_size
    longest = getattr(recipe.train, "max_length", None)
    tokens = tokens_of(rows, tokenizer, longest)
    pad: Any = tokenizer.pad_token_id
    measured = {"pad_token_id": pad, "batch_size": size}
    before = losses(beginning_of(recipe).load(), tokens, **measured, desc="losses before")
    use = trained.load()
    after = losses(use, tokens, **measured, desc="losses after")
    questions = [question_of(row["prompt"]) for row in rows]
    near, similarity = nearest(vectors_of(use, tokenizer, questions, max_length=longest, batch_size=size))
    if scorers:
        scored = score_rows([{**row, "completions": [row["completion"]]} for row in rows], scorers)
        rating = np.array([_number(next(iter(one["rewards"][0].values()))) for one in scored.rows])
    elif options.by == ITSELF:
        asked = policy_asked(use, tokenizer, RATING, options.out.parent / KEPT, batch_size=size)
        rating = ratings(rows, asked)
    else:
        rating = np.full(len(rows), np.nan)
    return tokenizer, use, Diagnosed(rows, Figures(before, after, similarity, rating), near)


def _writer(
    options: argparse.Namespace,
    decoding: Decoding,
    tokenizer: PreTrainedTokenizerBase,
    use: Use,
    endpoint: Endpoint | None,
) -> Asked:
    """Who rewrites: the policy that was trained, or an endpoint."""
    folder = options.out.parent / KEPT
    if endpoint is not None:
        return endpoint_asked(endpoint, folder / f"{options.rewrite.stem}-endpoint.jsonl")
    return policy_asked(use, tokenizer, decoding, folder, batch_size=options.batch_size)


def _number(score: float | None) -> float:
    return float("nan") if score is None else score


def _endpoint(options: argparse.Namespace) -> Endpoint | None:
    if options.writer is None:
        idle = [f"--{name.replace('_', '-')}" for name in ("model", "key_variable") if getattr(options, name)]
        if idle:
            raise RunError(f"{idle[0]}: is an endpoint's, which --writer names; leave it out")
        return None
    if options.rewrite is None or options.model is None:
        lacking = "--rewrite, where its rows go" if options.rewrite is None else "--model, its name of the model"
        raise RunError(f"--writer: does nothing without {lacking}")
    return endpoint_of(
        options.writer, options.model, options.key_variable, options.allow, what="flagged rows",
        temperature=options.temperature, max_tokens=options.max_new_tokens,
    )  # fmt: skip


def _sigmas(text: str) -> dict[str, float]:
    found: dict[str, float] = dict.fromkeys(FLAGS, 1.0)
    for part in filter(None, text.split(",")):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in FLAGS or not 0 <= value < float("inf"):
            raise RunError(f"--sigmas: expected NAME=NUMBER with a NAME of {', '.join(FLAGS)}, 0 or more, got {part!r}")
        found[name] = value
    return found


def _told_rows(found: Diagnosed, flagged: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    columns = [
        dict(zip(Figures._fields, map(_plain, values), strict=True)) for values in zip(*found.figures, strict=True)
    ]
    return [
        {"row": index + 1, "flags": flagged[index], **columns[index], "neighbours": [int(one) + 1 for one in near], **_said(row)}
        for index, (row, near) in enumerate(zip(found.rows, found.near, strict=True))
    ]  # fmt: skip


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _told(out: Path, figures: Figures, beyond: Limits, flagged: Sequence[Sequence[str]]) -> str:
    counts = Counter(name for own in flagged for name in own)
    which = {
        HARD: f"losses above {beyond.before:.4g} before and {beyond.after:.4g} after training",
        LONELY: f"similarity below {beyond.similarity:.4g}",
        POOR: f"rating below {beyond.rating:.4g}",
    }
    limit = {HARD: beyond.before + beyond.after, LONELY: beyond.similarity, POOR: beyond.rating}
    which |= {name: "no two rows differ in it" for name in FLAGS if np.isnan(limit[name])}
    parts = [f"{counts[name]} {name} ({which[name]})" for name in FLAGS]
    lacking = {"losses": figures.after, "rating": figures.rating}
    left = [f"; {n} rows without {name}" for name, values in lacking.items() if (n := int(np.isnan(values).sum()))]
    return f"{out}: {sum(map(bool, flagged))} of {len(flagged)} rows are flagged: {', '.join(parts)}" + "".join(left)
