"""`python -m eval RUN [OTHER_RUN ...]`: evaluate a run against its reference, and beside other runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from align.data import DataError
from align.recipe import RecipeError
from align.rundir import METRICS_FILE, RunError, quiet_upstream, read_metrics

from .evaluate import evaluate
from .report import table, verdict, write_report
from .subjects import load_subject


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN|section.key=value", help="run directories, or a model with --recipe"
    )
    parser.add_argument("--recipe", help="data, reference and eval settings for a model that is not a run directory")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's gold reward run this"
    )
    parser.add_argument("-o", "--out", type=Path, help="folder of the report; by default the first run's own")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print the table and the report's path; problems with what was given end with exit code 2."""
    quiet_upstream()
    options = arguments().parse_intermixed_args(argv)
    overrides = tuple(item for item in options.runs if "=" in item)
    names = [item for item in options.runs if "=" not in item]
    try:
        if not names:
            raise RunError("name a run directory, or a model with --recipe")
        subjects = [load_subject(name, options.recipe, overrides) for name in names]
        if len({s.name for s in subjects}) < len(subjects):  # runs of one name in different folders
            for s, name in zip(subjects, names, strict=True):
                s.name = name
        subject, *others = subjects
        out = options.out or Path(names[0])
        if options.out is None and not out.is_dir():
            raise RunError(f"{names[0]}: not a folder, so say where the report goes with --out")
        if out.is_file():
            raise RunError(f"--out: {out} is a file; name a folder")
        out.mkdir(parents=True, exist_ok=True)
        from .plots import pictures  # noqa: PLC0415 - matplotlib is an extra, and missed before anything is computed

        report = evaluate(subject, others, out=out, allow=options.allow)
    except (RunError, RecipeError, DataError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    curves = {
        s.name: read_metrics(Path(name) / METRICS_FILE) for s, name in zip([subject, *others], names, strict=True)
    }
    page = write_report(report, pictures(report, curves), out)
    print(f"\n{verdict(report)}\n\n{table(report)}\n\nreport: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
