"""Looks at the run directory as a start of the run would find it; training itself refuses when it claims the directory."""

from pathlib import Path

from align.errors import RunError
from align.findings import Finding
from align.runs.contents import ENV_FILE, RECIPE_FILE, check_folder, check_own_files, foreign

WHERE = "train.output_dir"


def inspect_directory(run: Path) -> list[Finding]:
    """What is there already and keeps a first run out."""
    try:
        check_own_files(run)
        if (run / RECIPE_FILE).is_file():
            message = f"{run} already holds a run"
            remedy = "continue it with --resume auto, replace it with --overwrite, or choose another"
            return [Finding("note", "run-there", WHERE, message, remedy)]
        if foreign(run) != [ENV_FILE]:  # a beginning, which is deleted
            check_folder(run)
    except RunError as error:
        message, _, remedy = str(error).partition(": choose ")
        return [Finding("error", "run-directory", WHERE, message, f"choose {remedy}" if remedy else "mend it")]
    except OSError as error:
        return [Finding("error", "run-directory", WHERE, f"{run}: {error.strerror}", "choose another train.output_dir")]
    return []
