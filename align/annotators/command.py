"""Finds groups of annotators by a recipe, for `alignkit groups`."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from align import train
from align.errors import RunError
from align.own_code import allow_file_argument
from align.recipe.loading import load_recipe

from .em import FILE, run_em


def main(argv: Sequence[str]) -> int:
    """Find groups of annotators who want different things, and train a reward model for each."""
    parser = argparse.ArgumentParser(prog="alignkit groups", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("recipe", help="of a reward model, on pairs with a column `annotator`")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values are read as YAML")
    parser.add_argument("--groups", type=int, default=2, metavar="K", help="how many")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the most trainings of each group's model")
    parser.add_argument("--soft", action="store_true", help="draw each annotator's group by its probability")
    parser.add_argument("--resume", choices=("auto",), help="go on in train.output_dir")
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    recipe = load_recipe(options.recipe, options.overrides)
    run = Path(str(recipe.train.output_dir))
    if run.exists() and any(run.iterdir()) and options.resume is None:
        raise RunError(f"{run}: is not empty; go on with --resume auto, or name another train.output_dir")
    found = run_em(recipe, train.run, groups=options.groups, rounds=options.rounds, soft=options.soft)
    sizes = ", ".join(f"{size:.4g}" for size in found["rounds"][-1]["sizes"])
    print(f"groups of {sizes} annotators: {run / FILE}")  # noqa: T201 - the command line's own
    if moved := found["rounds"][-1].get("moved"):
        told = f"{moved} of {len(found['annotators'])} annotators moved after the last training"
        print(f"not settled: {told}, so that the adapters are of the groups before; give it more --rounds")  # noqa: T201
    if found["doubt"]:
        print(f"not to be believed: {found['doubt']}")  # noqa: T201
    return 0
