"""Does a run give what its recipe expects? Estimates of its report against values, tolerances and directions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from align.errors import RunError
from align.recipe.loading import Expectation, Recipe, load_recipe
from align.runs.directory import RECIPE_FILE

from .__main__ import Wanted, report_on

REPORT_FILE = "report.json"
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
    """Check a finished run. Its report is read if there is one, and made otherwise.

    Args:
        run: The run directory.
        recipe: Whose evaluation and expectations to use in place of the run's own; it is then evaluated anew.
        overrides: `section.key=value` strings; with any but of `expect`, the run is evaluated anew.
        allow: Gold rewards of the form MODULE:FUNCTION that may run.
        out: Folder of the report; by default the run's own.

    Raises:
        RunError, RecipeError, DataError, OSError: As `report_on`, `expectations` and `check_report` say.
    """
    expect = expectations(run, recipe, overrides)
    path = (out or run) / REPORT_FILE
    measured_otherwise = any(not override.startswith("expect.") for override in overrides)
    if recipe is not None or measured_otherwise or not path.is_file():
        name = None if recipe is None else str(recipe.path)
        report_on(Wanted([str(run)], name, tuple(overrides), allow, out))
    return check_report(path, expect)


def same_training(run: Path, recipe: Recipe) -> bool:
    """Whether a run was trained as a recipe says; what it evaluates and expects may differ, and where it lies."""
    return _trained(yaml.safe_load((run / RECIPE_FILE).read_text(encoding="utf-8"))) == _trained(
        yaml.safe_load(recipe.resolved_yaml())
    )


def _trained(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key not in ("eval", "expect")}
    return kept | {"train": {key: value for key, value in kept["train"].items() if key != "output_dir"}}
