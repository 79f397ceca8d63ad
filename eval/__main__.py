"""`python -m eval RUN [OTHER_RUN ...]`: evaluate a run against its reference, and beside other runs."""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from align.data import DataError
from align.recipe import RecipeError, load_recipe
from align.rundir import METRICS_FILE, RECIPE_FILE, RunError, quiet_upstream, read_metrics, write_text

from .evaluate import Report, evaluate
from .measures import check_measurable, check_writes_answers
from .report import comparison_table, table, to_html, verdict, write_report
from .subjects import load_subject


class Wanted(NamedTuple):
    """What to evaluate, and where to."""

    names: list[str]
    """Run directories, or models with `recipe`."""
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    allow: Sequence[str] = ()
    out: Path | None = None
    """A folder, or for a comparison a file NAME.html; by default the first run's own folder."""
    compare: bool = False


def arguments(*, compare: bool = False) -> argparse.ArgumentParser:
    """The command line; that of `alignkit compare` differs in nothing but its texts."""
    about = "Compare runs with each other: every pair, corrected for how many pairs there are." if compare else __doc__
    prog = "alignkit compare" if compare else "python -m eval"
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN|section.key=value", help="run directories, or a model with --recipe"
    )
    parser.add_argument("--recipe", help="data, reference and eval settings for a model that is not a run directory")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's gold reward run this"
    )
    folder = "folder of the report; by default the first run's own"
    parser.add_argument(
        "-o", "--out", type=Path, help=f"{folder}; NAME.html writes that page alone" if compare else folder
    )
    return parser


def main(argv: Sequence[str] | None = None, *, compare: bool = False) -> int:
    """Evaluate, print the table and the report's path; problems with what was given end with exit code 2."""
    quiet_upstream()
    options = arguments(compare=compare).parse_intermixed_args(argv)
    overrides = tuple(item for item in options.runs if "=" in item)
    names = [item for item in options.runs if "=" not in item]
    try:
        report, page = report_on(Wanted(names, options.recipe, overrides, options.allow, options.out, compare))
    except (RunError, RecipeError, DataError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    tables = "\n\n".join(filter(None, (table(report), comparison_table(report))))
    print(f"\n{verdict(report)}\n\n{tables}\n\nreport: {page}")
    return 0


def report_on(wanted: Wanted) -> tuple[Report, Path]:
    """Evaluate, and write the report, its pictures, the answers and the scores; returns the report and its page.

    Raises:
        RunError, RecipeError, DataError, OSError: If something given cannot be evaluated, as `load_subject` and
            `evaluate` say, or the report cannot go where it should.
        ImportError: If a package is missing that a measure needs.
    """
    names, out = wanted.names, wanted.out
    if not names:
        raise RunError("name a run directory, or a model with --recipe")
    if wanted.compare and len(names) < 2:
        raise RunError(f"{names[0]}: one run cannot be compared; name another")
    if find_spec("matplotlib") is None:
        raise RunError("evaluation draws pictures: pip install 'alignkit[eval]'")
    if wanted.recipe is not None and out is None and not Path(names[0]).is_dir():
        raise RunError(f"{names[0]}: not a folder, so say where the report goes with --out")
    page = out if wanted.compare and out is not None and out.suffix == ".html" and not out.is_dir() else None
    folder = page.parent if page is not None else out or Path(names[0])
    if folder.is_file():
        raise RunError(f"--out: {folder} is a file; name a folder")
    _check_methods(names, wanted)
    subjects = [load_subject(name, wanted.recipe, wanted.overrides) for name in names]
    if len({s.name for s in subjects}) < len(subjects):  # runs of one name in different folders
        for s, name in zip(subjects, names, strict=True):
            s.name = name
    subject, *others = subjects
    folder.mkdir(parents=True, exist_ok=True)
    from .plots import pictures  # noqa: PLC0415 - matplotlib is an extra, and missed before anything is computed

    report = evaluate(subject, others, out=folder if page is None else None, allow=wanted.allow, compare=wanted.compare)
    curves = {s.name: read_metrics(Path(name) / METRICS_FILE) for s, name in zip(subjects, names, strict=True)}
    drawn = pictures(report, curves)
    if page is None:
        return report, write_report(report, drawn, folder)
    write_text(page, to_html(report, drawn))
    return report, page


def _check_methods(names: Sequence[str], wanted: Wanted) -> None:
    """Before any weight is loaded; that a name is no run is told by `load_subject`."""
    for check, name in zip([check_measurable, *[check_writes_answers] * (len(names) - 1)], names, strict=True):
        recipe = wanted.recipe or Path(name) / RECIPE_FILE
        if wanted.recipe is not None or Path(recipe).is_file():
            check(name, load_recipe(recipe, wanted.overrides))


if __name__ == "__main__":
    sys.exit(main())
