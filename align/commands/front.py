"""Trains the policies of a front from a recipe, for `alignkit front`."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from align import train
from align.check.refusals import refuse_several
from align.errors import RunError
from align.fronts.run import run_front
from align.own_code import allow_file_argument
from align.recipe.loading import load_recipe
from align.runs.contents import FRONTS_FILE
from align.runs.directory import claimed

NONE = "fronts: missing section; it says which policies make the front"


def main(argv: Sequence[str]) -> Path:
    """Train the policies of a front; returns its directory."""
    parser = argparse.ArgumentParser(prog="alignkit front", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values are read as YAML")
    parser.add_argument("--resume", choices=("auto",), help="go on with the front that is in train.output_dir")
    parser.add_argument("--overwrite", action="store_true", help="replace the front that is in train.output_dir")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's rewards run this"
    )
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    recipe = load_recipe(options.recipe, options.overrides)
    if recipe.fronts is None:
        raise RunError(f"{options.recipe}: {NONE}; or train one policy with `alignkit train`")
    run, resume = Path(str(recipe.train.output_dir)), options.resume is not None
    with claimed(run, resume=resume, overwrite=options.overwrite, ledger=FRONTS_FILE):
        sets = refuse_several(recipe, resume=resume, allow=options.allow)
        return run_front(recipe, train.run, resume=resume, overwrite=options.overwrite, sets=sets, allow=options.allow)
