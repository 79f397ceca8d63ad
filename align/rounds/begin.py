"""Begins a run of several trainings, of rounds or of a front, or goes on with it: the same recipe, and no leftovers of a kill."""

import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from align.errors import RunError
from align.files import SCRATCH, plain_json, write_text
from align.own_code import keep_copies
from align.recipe.loading import Recipe
from align.run_identity import WRITTEN, recipe_as_written, recipe_differences
from align.runs.contents import RECIPE_FILE, delete_run
from align.runs.identity import NOT_SAID, Difference, rewritten, told

from .ledger import Ledger

BY_ROUND = re.compile(r"train\.\w+|rounds\.sample\.temperature")
"""Keys of settings that may have a number for each round."""
Stage = tuple[int, str]
"""Number of a round, and name."""
COMPARED = "compared"
"""Where the ledger keeps, with the recipe, what policies are compared by."""


def _recorded(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What is on record of a recipe: of more rounds than there are to be, their own numbers stay; they may be asked for again."""
    fewer = before.get("rounds.count", 0) > now.get("rounds.count", 0)
    numbers = {key: value for key, value in before.items() if key == "rounds.count" or BY_ROUND.fullmatch(key)}
    return {**now, **(numbers if fewer else {})}


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
    refused: Callable[[list[Difference], Collection[Stage]], list[Difference]] = lambda found, done: found,
    compared: Mapping[str, Any] | None = None,
) -> Ledger:
    """The ledger of the run, whose directory is claimed already, with the recipe in it.

    Args:
        recipe: Whose data and settings are known to work.
        section: Of the recipe, which says what the run is made of.
        ledger: The name of its file.
        resume: Whether to go on in a run that is there.
        overwrite: Delete the run that is there.
        refused: Of what is said otherwise than before, what keeps a run of which so many stages are done from going on; the
            number of rounds does not, say.
        compared: What its policies are compared by, of which the recipe's training says nothing: data and answers.

    Raises:
        RunError: If the run that is there is of another recipe, naming what differs.
    """
    run, state = directory_of(recipe), PartialState()
    by = json.loads(json.dumps(dict(compared or {}), default=plain_json))
    if resume and (run / RECIPE_FILE).is_file():
        before = Ledger(run, ledger, mend=False).done
        known = before.get((0, "recipe"), {"counts": {}})["counts"].get(COMPARED, {})
        other = refused(recipe_differences(run, recipe_as_written(recipe)), before)
        other += [one for one in rewritten(known, by) if NOT_SAID not in (one.old, one.new)]  # of what both say
        by = known | by
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
    written = made.done.get((0, "recipe"), {"counts": {}})["counts"].get(WRITTEN, {})
    said = {WRITTEN: _recorded(written, recipe_as_written(recipe)), COMPARED: by}
    if made.done.get((0, "recipe"), {"counts": said})["counts"] != said:  # gone on with otherwise, which is allowed
        del made.done[0, "recipe"]
    made.stage(0, "recipe", [], [run / RECIPE_FILE], lambda: said)
    return made
