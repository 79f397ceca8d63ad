"""Draws all pictures of a report, in the order in which its page shows them."""

from typing import Any

from .plots import pictures
from .plots_fronts import objective_pictures
from .plots_judges import judged_pictures
from .plots_rounds import rounds_pictures
from .results import Report


def all_pictures(report: Report, curves: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """PNG bytes by title.

    Args:
        report: What is drawn.
        curves: Records of `metrics.jsonl` by run name, the evaluated run first.
    """
    return (
        rounds_pictures(report)
        | pictures(report, curves)
        | judged_pictures(report)
        | objective_pictures(curves, report.front)
    )
