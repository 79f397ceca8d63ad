"""Shows, for `alignkit data show`, what rows become: their text, cut into tokens, and which of these are learnt from.

Rows are read by `align.data.loading` and cut by the functions that `check` and evaluation use in the place of TRL's, which
tests hold to what the trainers' own data sets hold. Without a model there are no tokens, and torch is not imported.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.data.loading import TRAIN, DataConfig, load_set
from align.data.rows.messages import SIDES
from align.data.rows.normalise import ROW, Rows
from align.data.rows.truncation import truncated
from align.errors import RunError
from align.findings import Finding, printable
from align.own_code import allow_file_argument
from align.strict.fields import build
from align.strict.yaml_tree import Tree, override

READ, BETTER, WORSE, CUT = ".", "+", "-", "x"
COLOURS = {READ: "2", BETTER: "32", WORSE: "31", CUT: "9;2"}
"""Of ISO 6429: faint, green, red, struck out."""
LEGEND = {
    READ: "read, not learnt from",
    BETTER: "learnt from",
    WORSE: "learnt from, as what is not wanted",
    CUT: "cut off",
}
SEAM = "¦"
MAX_LENGTH = "max_length"


class Shown(NamedTuple):
    """What is shown, and how it is read."""

    data: DataConfig
    rows: Rows = "pairs"
    columns: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    max_length: int | None = None
    tokenizer: Any = None
    notes: tuple[str, ...] = ()


class Part(NamedTuple):
    """A stretch of a row: its name, its mark, and its lines, each cut into tokens where there is a model."""

    name: str
    mark: str
    lines: list[list[str]]


def main(argv: Sequence[str]) -> int:
    """Show what the rows of a source become: text, tokens, and which of them are learnt from."""
    parser = argparse.ArgumentParser(
        prog="alignkit data show", allow_abbrev=False, description=main.__doc__, epilog="; ".join(_legend())
    )
    parser.add_argument(
        "source", metavar="FILE", nargs="?", help="a file, a folder or a hub id; by default the recipe's"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="of the recipe; without one data.… and train.max_length",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--recipe", metavar="R", help="read and cut the rows as training by this recipe does")
    how.add_argument("--model", metavar="M", help="cut them by this model's tokenizer and chat template")
    parser.add_argument("--method", help="whose rows they are; default: dpo, or the recipe's")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="show the first N; default: 3")
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    words = [word for word in (options.source, *options.overrides) if word is not None]
    names = [word for word in words if "=" not in word or Path(word).exists()]
    overrides = [word for word in words if word not in names]
    if len(names) > 1 or (not names and options.recipe is None):
        raise RunError("data show: name one source, or a recipe with --recipe")
    if options.rows < 1:
        raise RunError(f"--rows: must be at least 1, got {options.rows}")
    if options.recipe is None:
        shown = _of_file(names[0], overrides, options.method, options.model)
    else:
        shown = _of_recipe(options.recipe, names, overrides, options.method)
    told: list[Finding] = []
    keep = (ROW, *shown.columns)
    data, _ = load_set(TRAIN, shown.data, keep=keep, texts=shown.texts, rows=shown.rows, told=told)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in [*(finding.line() for finding in told), *shown.notes, "", *_legend(colour)]:
        _print(line)
    for row in data.select(range(min(options.rows, len(data)))):
        _print(f"\nrow {int(dict(row)[ROW])}")
        for line in lines_of(dict(row), shown, colour=colour):
            _print(line)
    _print(f"\n{min(options.rows, len(data))} of {len(data)} {shown.rows}")
    return 0


def _of_file(name: str, overrides: list[str], method: str | None, model: str | None) -> Shown:
    tree = Tree("data show")
    tree.values = {"data": {"train": {"path": name}}}
    override(tree, overrides)
    for section in tree.values.keys() - {"data", "train"}:
        tree.problem((section,), "does nothing here; leave it out, or name a recipe with --recipe")
    for key in (tree.get("train") or {}).keys() - {MAX_LENGTH}:
        tree.problem(("train", key), "does nothing here; leave it out, or name a recipe with --recipe")
    config = build(DataConfig, tree.get("data"), ("data",), tree)
    tree.fail_on_problems()
    shown = Shown(config, max_length=tree.get("train", MAX_LENGTH))
    if method is not None or model is not None:
        from align.configs.common import defaults_of  # noqa: PLC0415 - imports TRL
        from align.methods import METHODS  # noqa: PLC0415 - imports TRL
        from align.strict.fields import nearest  # noqa: PLC0415 - as above

        if method is not None and method not in METHODS:
            raise RunError(f"--method: unknown, got {method!r}; {nearest(method, METHODS)}")
        known = METHODS[method or "dpo"]
        shown = shown._replace(rows=known.rows, notes=_notes(known.model, known.rows, {}))
        if MAX_LENGTH not in (tree.get("train") or {}):
            shown = shown._replace(max_length=defaults_of(known.config).get(MAX_LENGTH))
    if model is None:
        return shown
    from trl import ModelConfig  # noqa: PLC0415 - imports torch

    return shown._replace(tokenizer=_tokenizer(ModelConfig(model_name_or_path=model)))


def _of_recipe(name: str, sources: list[str], overrides: list[str], method: str | None) -> Shown:
    from align.methods import METHODS  # noqa: PLC0415 - imports TRL
    from align.recipe.loading import load_recipe  # noqa: PLC0415 - imports TRL

    overrides = [*overrides, *(f"data.train.path={source}" for source in sources)]
    recipe = load_recipe(name, overrides + ([f"method={method}"] if method else []), anywhere=True)
    return Shown(
        recipe.data, recipe.rows, recipe.columns, recipe.texts, getattr(recipe.train, MAX_LENGTH, None),
        _tokenizer(recipe.model), _notes(METHODS[recipe.method].model, recipe.rows, vars(recipe.train)),
    )  # fmt: skip


def _notes(model: str, rows: str, train: Mapping[str, Any]) -> tuple[str, ...]:
    """What the marks do not say."""
    said = {
        "a model that judges reads whole rows and learns from the score after the last token; longer pairs are left out": (
            model == "preference"
        ),
        "a reference is written into each row (train.reference_column), which is not shown": train.get(
            "reference_column"
        ),
        "train.completion_only_loss=false learns prompts too": train.get("completion_only_loss") is False,
        "train.assistant_only_loss learns every answer of a conversation, and the last alone is marked": train.get(
            "assistant_only_loss"
        ),
        "train.packing runs rows together": train.get("packing"),
        "prompts alone are read: what is learnt from is sampled in training": rows == "prompts",
    }
    return tuple(f"note: {text}" for text, applies in said.items() if applies)


def _tokenizer(settings: Any) -> Any:
    from align.models.dated import date_template  # noqa: PLC0415 - imports torch
    from align.models.loading import load_tokenizer  # noqa: PLC0415 - imports torch

    tokenizer = load_tokenizer(settings)
    date_template(tokenizer)
    return tokenizer


def lines_of(row: Mapping[str, Any], shown: Shown, *, colour: bool) -> Iterator[str]:
    """What is printed of a normalised row.

    Args:
        row: With `prompt`, and `chosen` and `rejected` or `completion`, and `label` for KTO.
        shown: How it is cut.
        colour: Whether the terminal colours it; the marks at the beginnings of lines are the same.
    """
    for part in _texts(row) if shown.tokenizer is None else _tokens(row, shown):
        yield f"  {part.name}"
        for line in part.lines:
            text = f"{part.mark} {SEAM.join(printable(piece, len(piece)) for piece in line)}"
            yield f"    \x1b[{COLOURS[part.mark]}m{text}\x1b[0m" if colour else f"    {text}"
    told = {column: row[column] for column in ("label", *shown.columns) if column in row}
    if told:
        yield "  " + ", ".join(f"{name}: {value}" for name, value in told.items())


def _texts(row: Mapping[str, Any]) -> Iterator[Part]:
    for name in ("prompt", *SIDES):
        if name in row:
            said = [_spoken(one) for one in row[name]] if isinstance(row[name], list) else [row[name]]
            yield Part(name, _mark(name, row), [[line] for text in said for line in text.splitlines(keepends=True)])


def _spoken(message: Mapping[str, Any]) -> str:
    further = {key: value for key, value in message.items() if key not in ("role", "content") and value}
    told = f" {json.dumps(further, ensure_ascii=False)}" if further else ""
    return f"{message['role']}: {message['content']}{told}"


def _mark(name: str, row: Mapping[str, Any]) -> str:
    if name == "prompt":
        return READ
    return WORSE if name == "rejected" or row.get("label") is False else BETTER


def _tokens(row: Mapping[str, Any], shown: Shown) -> Iterator[Part]:
    prompt, left_out, answers = _encoded(row, shown.tokenizer)
    limit = shown.max_length
    cut = f"cut off at max_length={limit}"

    def part(name: str, mark: str, ids: Sequence[int]) -> Part:
        pieces = [str(shown.tokenizer.decode([token])) for token in ids]
        return Part(f"{name} ({len(ids)} token{'s' * (len(ids) != 1)})", mark, _in_lines(pieces))

    yield part("prompt", READ, prompt[:limit])
    if limit is not None and len(prompt) >= limit and answers:
        yield part(f"prompt, {cut}; no answer fits, and training leaves the row out", CUT, prompt[limit:])
    if left_out:
        yield part("end of the prompt alone, which no answer of the data follows", CUT, left_out)
    for name, ids in answers.items():
        stays = truncated(prompt, ids, limit)[1]
        yield part(name, _mark(name, row), stays)
        if len(stays) < len(ids):
            yield part(f"{name}, {cut}", CUT, ids[len(stays) :])


def _encoded(row: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], list[int], dict[str, list[int]]]:
    """The prompt's tokens, what of the prompt alone training leaves out, and each answer's, before truncation."""
    from align.data.audit.encoding import encode  # noqa: PLC0415 - imports TRL
    from align.data.prompts import prompt_of  # noqa: PLC0415 - as above
    from align.data.rows.columns import TEMPLATE  # noqa: PLC0415 - as above
    from align.scoring.completions import completion_ids, prompt_ids  # noqa: PLC0415 - as above

    if "chosen" in row:
        names = ("prompt", "chosen", "rejected", *(name for name in TEMPLATE if row.get(name)))
        [pair] = encode({name: [row[name]] for name in names}, tokenizer)
        return pair.prompt, pair.left_out, {"chosen": pair.chosen, "rejected": pair.rejected}
    prompt = prompt_of(row)
    alone = prompt_ids(tokenizer, prompt)
    if "completion" not in row:
        return alone, [], {}
    ids, begin = completion_ids(tokenizer, prompt, row["completion"])
    return ids[:begin], alone[begin:], {"completion": ids[begin:]}


def _in_lines(pieces: Sequence[str]) -> list[list[str]]:
    """A line ends after a token that has a line break."""
    lines: list[list[str]] = [[]]
    for piece in pieces:
        lines[-1].append(piece)
        if "\n" in piece:
            lines.append([])
    return [line for line in lines if line]


def _legend(colour: bool = False) -> list[str]:
    return [
        f"\x1b[{COLOURS[mark]}m{mark} {text}\x1b[0m" if colour else f"{mark} {text}" for mark, text in LEGEND.items()
    ]


def _print(text: str) -> None:
    print(text)
