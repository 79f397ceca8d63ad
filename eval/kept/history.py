"""Shows how the figures of evaluations went over time and checkpoints, from the reports that runs keep."""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import RunError
from align.files import called, check_writable, write_text
from align.findings import printable
from align.runs.contents import REPORT_FILE
from eval.report.plots import error_bars, look, name_series, panels, png, short
from eval.report.tables import count, ends, markdown_table
from eval.report.write import NEWEST, SCHEMA_VERSION, kept_reports, report_folder
from eval.statistics.intervals import Estimate

HEAD = ("run", "date", "step", "report", "measure", "value", "95% interval", "n")
BESIDE = 0.4
"""Of the way to the next place of a picture, over which all runs of one place are spread."""
MEASURES = ("gold_reward/difference", "gold_reward/win_rate", "kl", "length_tokens/difference")


class Kept(NamedTuple):
    """One figure of one report."""

    run: str
    date: str
    step: int | None
    """Of the weights that were evaluated, where the report knows it."""
    report: str
    """Its folder in `reports/`."""
    measure: str
    estimate: Estimate

    def cells(self) -> tuple[str, ...]:
        """Under `HEAD`."""
        e, step = self.estimate, "" if self.step is None else str(self.step)
        return (self.run, self.date, step, self.report, self.measure, f"{e.value:.3f}", ends(e), count(e.n))


def history(argv: Sequence[str] | None = None, *, prog: str = "alignkit history") -> str:
    """A table of the figures of every kept report, by date; with --out also a CSV file and a picture beside it.

    Raises:
        RunError: If a folder holds no report, or no report has the measure.
    """
    about = "Show how figures went over time and checkpoints, from the reports that runs keep."
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or folders of --out")
    parser.add_argument(
        "--measure",
        action="append",
        default=[],
        metavar="NAME",
        help=f"default: those there are of {', '.join(MEASURES)}",
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.csv", help="write a CSV file, and FILE.png beside it")
    options = parser.parse_args(argv)
    if options.out is not None and options.out.suffix != ".csv":
        raise RunError(f"--out {options.out}: must be named FILE.csv")
    if options.out is not None:
        check_writable(options.out)
    names = [called(run) for run in options.runs]
    names = names if len(set(names)) == len(names) else [str(run) for run in options.runs]
    rows = sorted(
        (
            row._replace(run=name)
            for run, name in zip(options.runs, names, strict=True)
            for row in kept_figures(run, options.measure)
        ),
        key=lambda row: (row.date, row.report),
    )
    if not rows:
        raise RunError(
            f"no report has {' or '.join(map(printable, options.measure or MEASURES))}; see its table of estimates"
        )
    told = markdown_table(HEAD, [row.cells() for row in rows], texts=5)
    if options.out is None:
        return told
    write_text(options.out, to_csv(rows))
    options.out.with_suffix(".png").write_bytes(picture(rows))
    return f"{told}\n\nwritten: {options.out}, {options.out.with_suffix('.png')}"


def kept_figures(run: Path, measures: Sequence[str] = ()) -> list[Kept]:
    """What the reports of a run say of some measures.

    Raises:
        RunError: If there is no report, or one that cannot be read or is of another schema version.
    """
    if not run.is_dir():
        raise RunError(f"{run}: no such folder; name a run that was evaluated, or a folder of --out")
    paths = [p for p in sorted(kept_reports(report_folder(run)).glob(f"*/{REPORT_FILE}")) if p.parent.name != NEWEST]
    if not paths:
        raise RunError(f"{run}: keeps no reports; make one with `alignkit eval {run}`")
    found = []
    for path in paths:
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            version = read["schema_version"]
            of = read["settings"].get("about", {}).get("policies", {}).get(read["name"], {})
            for name in measures or MEASURES:
                if name in read["estimates"]:
                    e = read["estimates"][name]
                    estimate = Estimate(*(float(e[key]) for key in ("value", "low", "high")), n=int(e["n"]))
                    found.append(Kept(called(run), str(read["date"]), of.get("step"), path.parent.name, name, estimate))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise RunError(f"{path}: holds no report; delete {path.parent}, or evaluate again") from None
        if version != SCHEMA_VERSION:
            raise RunError(f"{path}: is of schema {version}, not {SCHEMA_VERSION}; evaluate again")
    return found


def to_csv(rows: Sequence[Kept]) -> str:
    """One figure a line; an end that nothing bounds is inf."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("run", "date", "step", "report", "measure", "value", "low", "high", "n"))
    for row in rows:
        step = "" if row.step is None else row.step
        writer.writerow((row.run, row.date, step, row.report, row.measure, *row.estimate))
    return file.getvalue()


def picture(rows: Sequence[Kept]) -> bytes:
    """One panel for each measure; over steps if every report has another one of its run, else in the order of the dates.

    The runs stand a little beside each other, so that none covers another at the same place.
    """
    runs, measures = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("run", "measure"))
    steps = [(row.run, row.measure, row.step) for row in rows]
    over_steps = None not in [row.step for row in rows] and len(set(steps)) == len(steps)
    reports = sorted({(row.date, row.run, row.report) for row in rows})
    places = sorted({row.step or 0 for row in rows}) if over_steps else range(len(reports))
    beside = BESIDE * min((b - a for a, b in pairwise(places)), default=1) / len(runs)
    figure, axis = panels(len(measures))
    for axes, measure in zip(axis, measures, strict=True):
        for index, run in enumerate(runs):
            own = [row for row in rows if (row.run, row.measure) == (run, measure)]
            if own:
                at = [
                    (row.step or 0) if over_steps else reports.index((row.date, row.run, row.report)) + 1 for row in own
                ]
                own = [own[i] for i in sorted(range(len(own)), key=at.__getitem__)]
                values = [row.estimate for row in own]
                at = [place + beside * (index - (len(runs) - 1) / 2) for place in sorted(at)]
                style: dict[str, Any] = look(index) | {"markersize": 4, "capsize": 3, "elinewidth": 1}
                axes.errorbar(at, [e.value for e in values], yerr=error_bars(values), label=short(run), **style)
        axes.set_title(short(measure), fontsize="small", loc="left")
        axes.locator_params(axis="x", integer=True)
    axis[-1].set(xlabel="step" if over_steps else "evaluation, in the order of the dates")
    name_series(figure)
    return png(figure)
