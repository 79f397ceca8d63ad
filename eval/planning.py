"""Tells how many prompts a wanted difference needs, from the noise of a report or, before there is one, from a recipe."""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from align.errors import RunError
from align.recipe.loading import load_recipe
from align.runs.contents import REPORT_FILE
from eval.report.tables import markdown_table
from eval.report.write import report_folder
from eval.statistics.intervals import Estimate
from eval.statistics.power import detectable, detectable_share, fewest_prompts, prompts_needed, standard_shift

HEAD = ("measure", "n", "to be seen now")
UNITS = (("win rate, every verdict decided", 1.0, 0.5), ("win rate, half of the verdicts ties", 0.5, 0.5))
"""What is said of a recipe: the share of prompts that are won or lost, and what a share won less a share lost counts."""


def power_table(argv: Sequence[str] | None = None, *, prog: str = "alignkit power") -> str:
    """A table: the least difference that the prompts show in 8 of 10 cases, and how many a wanted one needs.

    Raises:
        RunError: If there is neither a report nor a recipe, or what is wanted is no difference.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=(power_table.__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("target", metavar="REPORT|RECIPE", help="report.json, a folder that holds one, or a recipe")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of a recipe")
    parser.add_argument("--difference", type=float, help="the difference that is wanted, in the unit of each measure")
    options = parser.parse_intermixed_args(argv)
    wanted = options.difference
    if wanted is not None and not 0 < wanted < math.inf:
        raise RunError(f"--difference: must be positive and finite, got {wanted}")
    path = Path(options.target)
    path = report_folder(path) / REPORT_FILE if path.is_dir() else path
    if path.suffix == ".json":
        rows = list(_of_report(path, wanted))
        if not rows:
            raise RunError(f"{path}: no difference in it; evaluate with a gold reward or a judge, or compare runs")
    else:
        rows = list(_of_recipe(options.target, tuple(options.overrides), wanted))
    head = HEAD if wanted is None else (*HEAD, f"n for {wanted:g}")
    table = markdown_table(head, [row if wanted is not None else row[:-1] for row in rows], texts=1)
    return f"{table}\n\nAt 95%, with a chance of 80% of seeing it. Of skewed values: about."


def _of_report(path: Path, wanted: float | None) -> Iterator[tuple[str, ...]]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        estimates = {name: _estimate(e) for name, e in read["estimates"].items()}
    except FileNotFoundError:
        raise RunError(f"{path}: no such report; make it with `alignkit eval`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{path}: holds no report; make it again with `alignkit eval`") from None
    for name, e in estimates.items():
        won = name.startswith("win_rate/") or "/win_rate/" in name
        if name.endswith("/difference") or won:
            seen = detectable(e)
            yield _row(name, e.n, seen, wanted, lambda d, seen=seen, n=e.n: prompts_needed(seen, n, d))


def _estimate(read: Any) -> Estimate:
    return Estimate(float(read["value"]), float(read["low"]), float(read["high"]), int(read["n"]))


def _of_recipe(name: str, overrides: tuple[str, ...], wanted: float | None) -> Iterator[tuple[str, ...]]:
    recipe = load_recipe(name, overrides)
    if recipe.eval.generate is None:
        raise RunError(f"{name}: no answers are sampled; set eval.generate={{prompts: 128}}")
    n = recipe.eval.generate.prompts
    for title, discordant, counts in UNITS:

        def share(prompts: int, discordant: float = discordant, counts: float = counts) -> float:
            return counts * detectable_share(discordant, prompts)

        yield _row(title, n, share(n), wanted, lambda d, shown=share: fewest_prompts(shown, d))

    def mean(prompts: int) -> float:
        return standard_shift(prompts) / math.sqrt(prompts)

    title = "a mean, in standard deviations of a prompt's difference"
    yield _row(title, n, mean(n), wanted, lambda d: fewest_prompts(mean, d))


def _row(name: str, n: int, seen: float, wanted: float | None, needs: Callable[[float], int]) -> tuple[str, ...]:
    needed = ""
    if wanted is not None:
        try:
            needed = f"{needs(wanted):,}"
        except ValueError:  # or nothing is known of the noise
            needed = "more than 10,000,000" if math.isfinite(seen) else ""
    return (name, str(n), f"{seen:.3f}" if math.isfinite(seen) else "nothing", needed)
