"""Verifies that a run gives what its recipe expects: values, tolerances and directions against its report."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from align.errors import RunError
from align.recipe.loading import Expectation, Recipe, load_recipe
from align.runs.contents import RECIPE_FILE, REPORT_FILE
from eval.report.assemble import prepare
from eval.report.write import report_folder

from .__main__ import Wanted, report_on
from .evaluate import load_held_out
from .identity import identity_of_policy, measured, other_than

logger = logging.getLogger(__name__)

WORDS = {"near": "", "at_least": "at least ", "at_most": "at most "}


class Checked(NamedTuple):
    """One expectation, what was measured, and whether it holds."""

    name: str
    wanted: Expectation
    got: Mapping[str, float]
    """`value`, `low`, `high` and `n`."""
    holds: bool

    def __str__(self) -> str:
        got, tol = self.got, "" if self.wanted.direction != "near" and self.wanted.tol == 0 else f" ± {self.wanted.tol}"
        return (
            f"{'ok  ' if self.holds else 'FAIL'} {self.name}: {got['value']:.4f} [{got['low']:.4f}, {got['high']:.4f}] "
            f"(n={got['n']:.0f}), expected {WORDS[self.wanted.direction]}{self.wanted.value}{tol}"
        )


def expectations(run: Path, recipe: Recipe | None = None, overrides: Sequence[str] = ()) -> dict[str, Expectation]:
    """What a run's own recipe expects, overrides applied, or another recipe that is given.

    Raises:
        RunError: If it expects nothing.
    """
    expect = (load_recipe(run / RECIPE_FILE, overrides, anywhere=True) if recipe is None else recipe).expect
    if not expect:
        raise RunError(f"{run if recipe is None else recipe.path}: its recipe expects nothing; add an `expect` section")
    return expect


def check_report(path: Path, expect: Mapping[str, Expectation]) -> list[Checked]:
    """Each expectation against a report.json.

    Raises:
        RunError: If the file holds no report, or not all the estimates.
    """
    run = path.parent
    broken = RunError(f"{run}: {REPORT_FILE} holds no report; make it again with `alignkit eval {run}`")
    try:
        estimates = dict(json.loads(path.read_text(encoding="utf-8"))["estimates"])
    except (ValueError, KeyError, TypeError):
        raise broken from None
    checked = []
    for name, wanted in expect.items():
        if name not in estimates:
            raise RunError(f"{run}: the report has no estimate {name!r}; it has {', '.join(estimates)}")
        try:
            got = {key: float(estimates[name][key]) for key in ("value", "low", "high", "n")}
        except (ValueError, KeyError, TypeError):
            raise broken from None
        checked.append(Checked(name, wanted, got, wanted.holds(got["value"])))
    return checked


def verify(
    run: Path,
    *,
    recipe: Recipe | None = None,
    overrides: Sequence[str] = (),
    allow: Sequence[str] = (),
    out: Path | None = None,
) -> list[Checked]:
    """Check a finished run. Its report is read if it is about these weights, data and settings, and made otherwise.

    Args:
        run: The run directory.
        recipe: Whose evaluation and expectations to use in place of the run's own; it is then evaluated anew.
        overrides: `section.key=value` strings.
        allow: Gold rewards of the form MODULE:FUNCTION that may run.
        out: Folder of the report; by default the run's own.

    Raises:
        RunError, RecipeError, DataError, OSError: As `report_on`, `expectations` and `check_report` say.
    """
    expect = expectations(run, recipe, overrides)
    path = (out or report_folder(run)) / REPORT_FILE
    if recipe is not None or not _is_of(path, run, overrides, allow):
        name = None if recipe is None else str(recipe.path)
        report_on(Wanted([str(run)], name, tuple(overrides), allow, out, taken=True))
    return check_report(path, expect)


def _is_of(path: Path, run: Path, overrides: Sequence[str], allow: Sequence[str]) -> bool:
    """Whether a report is there, and about the run, the data and the settings as they are now."""
    if not path.is_file():
        return False
    try:
        report = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        return False
    recipe = load_recipe(run / RECIPE_FILE, overrides, anywhere=True)
    sets = load_held_out(recipe)
    prompt_sets = prepare(recipe, allow=allow, ledgers=None).prompt_sets
    differ = other_than(report, identity_of_policy(str(run)), measured(recipe, sets, prompt_sets))
    if differ:
        logger.warning("%s: about other %s than there are now; the run is evaluated anew", path, ", ".join(differ))
    return not differ
