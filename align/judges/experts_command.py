"""Combines reward models of capabilities into one judge, for `alignkit experts`."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from align.data.loading import load_source
from align.data.sources import DataConfig, DataSource
from align.errors import RunError
from align.files import check_writable
from align.models.preference_model import check_preference_model

from .experts import CATEGORY, SETTINGS, check_rows, train_experts


def main(argv: Sequence[str]) -> int:
    """Combine reward models of several capabilities into one reward by a small network for each category of prompts (DMoERM)."""
    parser = argparse.ArgumentParser(prog="alignkit experts", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("pairs", metavar="FILE", help="pairs with a text column `category`")
    parser.add_argument(
        "--member", action="append", required=True, metavar="DIR", help="a trained reward model; adapters on one base"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="must hold no experts")
    parser.add_argument("--width", type=int, help="of the hidden layer; default: that of one model's states")
    parser.add_argument("--steps", type=int, default=200, help="of AdamW, each on all pairs of a category")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0, help="of the first weights")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_writable(options.out, folder=True)
    if (options.out / SETTINGS).exists():
        raise RunError(f"{options.out}: holds experts already; name another --out")
    if options.steps < 1 or not options.learning_rate > 0 or (options.width is not None and options.width < 1):
        raise RunError("--steps, --learning-rate, --width: must be positive")
    for folder in options.member:
        if (column := check_preference_model(folder, rewards=True)["reference_column"]) is not None:
            raise RunError(
                f"{folder}: compares answers with a {column}, which experts are not given; take reward models"
            )
    source = DataSource(options.pairs)
    data = load_source(source, options.pairs, DataConfig(source), keep=(), texts=(CATEGORY,), rows="pairs", told=[])
    rows = data.to_list()
    check_rows(rows)
    made = train_experts(
        options.member, rows, options.out, width=options.width, steps=options.steps, learning_rate=options.learning_rate,
        seed=options.seed,
    )  # fmt: skip
    print(f"{options.out}: {len(made.members)} reward models combined for {', '.join(made.combined)}")  # noqa: T201
    return 0
