"""Begins a run of several trainings, of rounds or of a front, or goes on with it: the same recipe, and no leftovers of a kill."""

import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState

from align.errors import RunError
from align.files import SCRATCH, write_text
from align.own_code import keep_copies
from align.recipe.loading import Recipe
from align.run_identity import WRITTEN, recipe_as_written, recipe_differences
from align.runs.contents import RECIPE_FILE, delete_run
from align.runs.identity import Difference, told

from .ledger import Ledger


def directory_of(recipe: Recipe) -> Path:
    """The run directory that a recipe names."""
    run = Path(str(recipe.train.output_dir))
    return run.absolute() if ".." in run.parts else run


def begin(
    recipe: Recipe,
    section: str,
    ledger: str,
    *,
    resume: bool,
    overwrite: bool,
    refused: Callable[[list[Difference]], list[Difference]] = list,
) -> Ledger:
    """The ledger of the run, whose directory is claimed already, with the recipe in it.

    Args:
        recipe: Whose data and settings are known to work.
        section: Of the recipe, which says what the run is made of.
        ledger: The name of its file.
        resume: Whether to go on in a run that is there.
        overwrite: Delete the run that is there.
        refused: Of what is said otherwise than before, what keeps the run from going on; the number of rounds does not, say.

    Raises:
        RunError: If the run that is there is of another recipe, naming what differs.
    """
    run, state = directory_of(recipe), PartialState()
    if resume and (run / RECIPE_FILE).is_file():
        other = refused(recipe_differences(run, recipe_as_written(recipe)))
        if other:
            raise RunError(
                f"{run}: its {section} were made by another recipe:\n{told(other)}\nrestore it, or begin in another directory"
            )
    if state.is_main_process:
        for left in list(run.glob(f"**/{SCRATCH}*")):  # by a kill, half written
            if left.exists():  # not in one that is deleted already
                shutil.rmtree(left)
        if overwrite:
            delete_run(run)
        keep_copies(run)
        write_text(run / RECIPE_FILE, recipe.resolved_yaml())
    state.wait_for_everyone()
    made = Ledger(run, ledger)
    made.stage(0, "recipe", [], [run / RECIPE_FILE], lambda: {WRITTEN: recipe_as_written(recipe)})
    return made
