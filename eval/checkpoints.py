"""Makes of the checkpoints of a run the policies of one report: what reward they reach, and how far from the reference."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from align.errors import RunError
from align.files import called
from align.going_on import finished_run
from align.recipe.loading import load_recipe
from align.run_identity import identity_of_run
from align.runs.checkpoints import check, numbered
from align.runs.contents import RECIPE_FILE, RESULTS
from eval.report.results import Report
from eval.statistics.names import REF

from .rounds import add_best, is_rounds
from .subjects import Subject

logger = logging.getLogger(__name__)

STEP = "step-"
FIRST = f"{STEP}0"


class Checkpoint(NamedTuple):
    """A policy that a run has been."""

    step: int
    path: Path


def checkpoints_of(run: Path, overrides: Sequence[str] = ()) -> list[Checkpoint]:
    """The intact checkpoints of a run and what it ended with, the newest first; what is passed over is logged.

    Raises:
        RunError: If it is no run with two of them, it has rounds, or nothing asks for answers that are scored.
    """
    if not (run / RECIPE_FILE).is_file():
        raise RunError(f"--checkpoints: {run}: no {RECIPE_FILE} there, so not a run directory; name one")
    if is_rounds(str(run)):
        raise RunError(
            f"--checkpoints: {run}: has rounds, which are compared without it; for one, name round-N/train in it"
        )
    recipe = load_recipe(run / RECIPE_FILE, overrides, anywhere=True)
    if recipe.eval.generate is None or not (recipe.eval.gold_reward or recipe.eval.judges):
        raise RunError(
            f"--checkpoints: {run}: over-optimisation shows in answers: set eval.generate, and eval.gold_reward or eval.judges"
        )
    own = identity_of_run(run).run
    found: dict[int, Checkpoint] = {}
    for step, path in numbered(run):
        try:
            of = check(path)["identity"].run
            if of == own:
                found[step] = Checkpoint(step, path)
            else:
                logger.warning(
                    "passed over: %s: of another run (%s) than the directory's (%s)", path, of or "unknown", own
                )
        except RunError as error:
            logger.warning("passed over: %s", error)
    if any((run / name).is_dir() for name in RESULTS):
        step = int(finished_run(run)[1]["step"])
        found.setdefault(step, Checkpoint(step, run))
    if len(found) < 2:
        raise RunError(
            f"--checkpoints: {run}: {len(found)} of its checkpoints can be evaluated, and two are needed; train with "
            "train.save_steps, and a train.save_total_limit that keeps them"
        )
    return sorted(found.values(), reverse=True)


def as_checkpoints(subjects: Sequence[Subject], checkpoints: Sequence[Checkpoint]) -> list[Subject]:
    """Subjects named by their steps."""
    for subject, checkpoint in zip(subjects, checkpoints, strict=True):
        subject.name = f"{STEP}{checkpoint.step}"
    return list(subjects)


def add_checkpoints(report: Report, subjects: Sequence[Subject], run: Path) -> None:
    """The order of the checkpoints, and the best by each measure that compares them, into a report that is settled.

    The reference is a candidate: where nothing is above it, training did not pay.
    """
    report.checkpoints = [subject.name for subject in reversed(subjects)]
    add_best(report, REF, [FIRST, *report.checkpoints])
    report.settings["checkpoints_of"] = called(run)
