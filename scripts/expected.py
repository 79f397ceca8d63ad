"""Prints the `expect` section of a recipe: what several seeds gave, and how far another may lie from their mean.

Run: python scripts/expected.py RECIPE FOLDER [ESTIMATE ...] [--seeds N] [--level L]. Runs that are there are not made again. Without an estimate
it names those of the report.

`value` is the mean over seeds. `tol` is half of Student's prediction interval of one further seed, rounded up to two digits: the recipe's
own seed is one of many, and other machines round otherwise. Where that makes them sample other tokens, --level 0.999 keeps many
such expectations true together.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

import align
from align.runs.contents import REPORT_FILE
from eval.__main__ import Wanted, report_on
from eval.report.write import report_folder
from eval.statistics.intervals import t_quantile

LEVEL = 0.99


def expected(values: list[float], level: float = LEVEL) -> tuple[float, float]:
    """Mean, and half of the prediction interval of one further value.

    Args:
        values: At least two, of runs that differ in their seed.
        level: Of the interval.
    """
    spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))
    half = t_quantile(level, len(values)) * spread
    digits = 1 - math.floor(math.log10(half)) if half > 0 else 6
    return round(float(np.mean(values)), digits + 1), math.ceil(half * 10**digits) / 10**digits


def report_of(recipe: str, words: list[str], seed: int, run: Path) -> dict[str, dict[str, float | None]]:
    """The estimates of a run's report; the run and its report are made if they are not there."""
    if not (report_folder(run) / REPORT_FILE).is_file():
        align.run(recipe, [*words, f"train.seed={seed}", f"train.output_dir={run}"], overwrite=True)
        report_on(Wanted([str(run)]))
    return json.loads((report_folder(run) / REPORT_FILE).read_text(encoding="utf-8"))["estimates"]


def estimates_of(recipe: str, seed: int, folder: Path) -> dict[str, float]:
    """The values of a run's report."""
    found = report_of(recipe, [], seed, folder / recipe.replace("/", "-") / f"seed-{seed}")
    return {name: one["value"] for name, one in found.items() if one["value"] is not None}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("folder", type=Path)
    parser.add_argument("estimates", nargs="*", metavar="ESTIMATE")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--level", type=float, default=LEVEL)
    options = parser.parse_args(argv)
    found = [estimates_of(options.recipe, seed, options.folder.absolute()) for seed in range(options.seeds)]
    print("expect:")
    for name in options.estimates or found[0]:
        value, tol = expected([one[name] for one in found], options.level)
        print(f"  {name}: {{value: {value:g}, tol: {tol:g}}}")


if __name__ == "__main__":
    main()
