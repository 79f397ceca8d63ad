"""Looks at the run directory as a start of the run would find it; training itself refuses when it claims the directory."""

from pathlib import Path

from align.files import unwritable
from align.findings import Finding
from align.runs.contents import CHOOSE, ENV_FILE, RECIPE_FILE, Occupied, check_folder, check_own_files, foreign

WHERE = "train.output_dir"


def inspect_directory(run: Path) -> list[Finding]:
    """What is there already and keeps a first run out."""
    try:
        check_own_files(run)
        if (run / RECIPE_FILE).is_file():
            remedy = f"continue it with --resume auto, replace it with --overwrite, or {CHOOSE}"
            return [Finding("note", "run-there", WHERE, f"{run} already holds a run", remedy)]
        if foreign(run) != [ENV_FILE]:  # a beginning, which is deleted
            check_folder(run)
    except Occupied as error:
        return [Finding("error", "run-directory", WHERE, error.what, error.remedy)]
    except OSError as error:
        return [Finding("error", "run-directory", WHERE, f"{run}: {error.strerror}", CHOOSE)]
    reason = unwritable(run, folder=True)
    if reason is not None:
        return [Finding("error", "run-directory", WHERE, f"{run}: cannot be written: {reason}", CHOOSE)]
    return []
