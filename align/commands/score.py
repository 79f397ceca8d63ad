"""Scores, for `alignkit score`, answers of files by rewards, models, judges or what people said of each."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from trl import ModelConfig

from align.errors import RunError
from align.files import check_writable, refuse_out, write_rows
from align.findings import printable
from align.judges.answered import JUDGES, together
from align.judges.from_scores import refuse_missing, scorers_of
from align.judges.scoring import Scored, score_rows
from align.own_code import allow_file_argument
from align.recipe.scores import ScoreConfig
from align.rewards.load import CALLS, REWARDS
from align.rewards.texts import CONVERSATIONS
from align.sampling.policy import policy_of
from align.strict.fields import build
from align.strict.yaml_tree import Tree


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
    allow_file_argument(parser)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    check_writable(options.out)
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
    unread = [name for name in config.rewards if CALLS in (REWARDS[name].reads if name in REWARDS else ())]
    if unread and CONVERSATIONS not in rows[0]:
        raise RunError(
            f"--by {unread[0]}: reads calls of tools, and these answers have no `{CONVERSATIONS}`; sample them by the run"
        )
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
        if any(name in values[kind] for kind in ("rewards", "judges")):
            raise RunError(f"--by {printable(name)}: is given twice; give each scorer a name of its own")
        values["judges" if settings and "kind" in settings else "rewards"][name] = settings
    tree = Tree("--by")
    config = build(ScoreConfig, values, (), tree)
    if tree.problems:
        raise RunError("\n".join(tree.problems))
    return config


def _told(out: Path, scored: Scored) -> str:
    answers = sum(len(row["rewards"]) for row in scored.rows)
    failed = scored.told()
    return f"{out}: {answers} answers to {len(scored.rows)} prompts" + (f"; {failed}" if failed else "")
