"""Scores, for `alignkit score`, answers of files by rewards, models, judges or what people said of each."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from trl import ModelConfig

from align.data import DataSource
from align.data.loading import read
from align.data.rows.pairs import RowError
from align.data.rows.scored import completions_of, prompt_of
from align.errors import DataError, RunError
from align.files import refuse_out, write_rows
from align.findings import printable
from align.judges.from_scores import refuse_missing, scorers_of
from align.judges.scoring import Scored, score_rows
from align.recipe.scores import ScoreConfig
from align.sampling.policy import policy_of
from align.strict.fields import build
from align.strict.yaml_tree import Tree

JUDGES = "judges"
GOLD = "gold"


def main(argv: Sequence[str]) -> int:
    """Score every answer of a file by rewards, models, judges or a column of labels; `alignkit data pairs` reads the scores."""
    parser = argparse.ArgumentParser(prog="alignkit score", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="rows of a prompt and completions; of several, all answers to a prompt are put together")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="must not exist")
    parser.add_argument("--by", action="append", default=[], metavar="REWARD|NAME={...}", help="a reward, NAME={options of it}, or NAME={kind: ..., ...} as in eval.judges; may be repeated")  # fmt: skip
    parser.add_argument("--column", help="a column with a list of one number or null for each answer")
    parser.add_argument("--of", choices=("win_rate", "log_odds"), default="win_rate", help="what a judge that compares gives an answer")  # fmt: skip
    parser.add_argument("--gold", metavar="COLUMN", help="a column with an answer that is put among the others")
    parser.add_argument(
        "--policy", help="who judges under {kind: language_model, path: policy}; as for `alignkit sample`"
    )
    parser.add_argument("--dtype", default="auto", help="precision of a language model that judges; default: its own")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE:FUNCTION|[VARIABLE@]HOST")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    refuse_out(options.out)
    config = read_by(options.by, options.column, options.of)
    policy = None if options.policy is None else policy_of(options.policy)
    scorers = scorers_of(
        config, ModelConfig(dtype=options.dtype), where="--by", allow=options.allow,
        ledgers=options.out.parent / f"{options.out.stem}-{JUDGES}", policy=policy and policy.load,
    )  # fmt: skip
    rows = together([Path(name) for name in options.files], gold=options.gold)
    refuse_missing(config, rows[0], ", ".join(map(printable, options.files)))
    scored = score_rows(rows, scorers)
    write_rows(scored.rows, options.out)
    print(_told(options.out, scored))
    return 0


def read_by(words: Sequence[str], column: str | None, of: str) -> ScoreConfig:
    """The scorers that the command line names.

    Raises:
        RunError: With every problem.
    """
    values: dict[str, Any] = {"rewards": {}, "judges": {}, "of": of} | ({"column": column} if column else {})
    for word in words:
        name, equals, text = word.partition("=")
        try:
            settings = yaml.safe_load(text) if equals else None
        except yaml.YAMLError as error:
            raise RunError(f"--by {printable(word)}: is not YAML: {printable(str(error).splitlines()[0])}") from None
        if settings is not None and not isinstance(settings, dict):
            raise RunError(f"--by {printable(word)}: expected NAME={{...}}")
        values["judges" if settings and "kind" in settings else "rewards"][name] = settings
    tree = Tree("--by")
    config = build(ScoreConfig, values, (), tree)
    if tree.problems:
        raise RunError("\n".join(tree.problems))
    return config


def together(files: Sequence[Path], *, gold: str | None = None) -> list[dict[str, Any]]:
    """The rows of several files of answers to the same prompts, with all answers of a prompt in one row.

    Args:
        files: In each the same prompts in the same order.
        gold: A column of the rows, whose text is put after the answers.

    Returns:
        Rows with the columns of the first file, and `sources`: for each answer the name of its file, or `gold`.

    Raises:
        DataError: If a file cannot be read, has rows without answers, or other prompts than the first.
    """
    every = [_rows(path) for path in files]
    made: list[dict[str, Any]] = []
    for index, first in enumerate(every[0]):
        row = {name: value for name, value in first.items() if name != "finished"}
        completions, sources = [], []
        for path, rows in zip(files, every, strict=True):
            if len(rows) != len(every[0]) or prompt_of(rows[index]) != prompt_of(first):
                raise DataError(
                    f"{path}: other prompts than in {files[0]} (first: row {index + 1}); score them by themselves"
                )
            given = completions_of(rows[index])
            completions += given
            sources += [path.stem] * len(given)
        if gold is not None:
            completions.append(_gold(first, gold, index))
            sources.append(GOLD)
        made.append(row | {"completions": completions, "sources": sources})
    return made


def _gold(row: Mapping[str, Any], column: str, index: int) -> Any:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"row {index + 1}: no text in the column {column!r}, whose answers are gold")
    return text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = read(DataSource(str(path))).to_list()
    except Exception as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {printable(str(error), 500)}") from error
    problems = []
    for number, row in enumerate(rows, start=1):
        try:
            completions_of(row)
        except RowError as error:
            problems.append(f"row {number}: {printable(str(error), 200)}")
    if problems:
        raise DataError(
            f"{path}: {len(problems)} of {len(rows)} rows hold no answers:\n  " + "\n  ".join(problems[:10])
        )
    return rows


def _told(out: Path, scored: Scored) -> str:
    answers = sum(len(row["rewards"]) for row in scored.rows)
    failed = scored.told()
    return f"{out}: {answers} answers to {len(scored.rows)} prompts" + (f"; {failed}" if failed else "")
