"""Knows what a run and its evaluation write into the run directory, so that nothing else there is ever touched.

Everything a run writes has a name of this list; `--overwrite` deletes these names only, the recipe last.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from align.errors import RunError
from align.files import lives, read_json
from align.own_code import FOLDER

RECIPE_FILE = "recipe.resolved.yaml"
ENV_FILE = "env.json"
METRICS_FILE = "metrics.jsonl"
LOCK_FILE = ".lock"
REPORT_FILE = "report.json"
CARD = "README.md"
ROUNDS_FILE, FRONTS_FILE, SWEEP_FILE = LEDGERS = "rounds.jsonl", "fronts.jsonl", "sweep.jsonl"
HOLDS = {None: "one training", ROUNDS_FILE: "rounds", FRONTS_FILE: "a front", SWEEP_FILE: "a sweep"}
"""What a run directory holds, by the file in which its trainings are listed, where it has several."""
CONTEXT_FILE = "context.json"
"""Of a run or a round: each reward's name, mean and standard deviation, and the least and most to ask for."""
TENSORBOARD = "tensorboard"
REFERENCE_FILE = "reference.json"  # in adapter/ or model/: travels with it
WRITING, REPLACED = ".writing-", ".replaced-"
"""Beginnings of names of folders that are being written, or about to be deleted."""

KNOWN_BY = {"adapter": "adapter_config.json", "model": "config.json"}
"""What a run leaves in a folder of that name, and a file by which it is known."""
RESULTS = tuple(KNOWN_BY)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
ROUND = re.compile(r"round-\d+")
LAST = (ENV_FILE, RECIPE_FILE)  # a directory whose deletion was cut short still says which run it held
FILES = (METRICS_FILE, CARD, REPORT_FILE, "report.md", "report.html", "responses.jsonl", "scores.jsonl", *LEDGERS,
         "validation-prompts.jsonl", "members.json", "front.json", "front.html", CONTEXT_FILE,
         *LAST)  # fmt: skip
COMPLETIONS = "completions"
FOLDERS = (
    *RESULTS,
    "skipped",
    "runs",
    COMPLETIONS,
    "pictures",
    "answers",
    "reports",
    "first",
    "report",
    "checkpoints",
    FOLDER,
    "policies",
    "soups",
    TENSORBOARD,
)
KEPT = ("judges",)  # what endpoints were paid for; filed by what was asked, whichever run asked it
SCRATCH = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)")
NO_FILES = ("lost+found",)  # at the root of a mounted disk


CHOOSE = "choose another train.output_dir"
MOVE = f"move it away, or {CHOOSE}"
WRITTEN_LAST = ("alignkit.json", *KNOWN_BY.values())
"""Of these, an adapter or a model has one."""


class Occupied(RunError):
    """A directory in which something lies that keeps a run out.

    Args:
        what: Where, and what is there.
        remedy: What to do.
    """

    def __init__(self, what: str, remedy: str = CHOOSE) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy


def result_of(run: Path) -> Path | None:
    """The adapter or the model that a run has ended with; None if neither is there."""
    return next((run / name for name in RESULTS if (run / name).is_dir()), None)


def result_in(path: str | Path, kind: str) -> Path | None:
    """The adapter or the model that a path means: the folder itself, or what the run in it trained; None if neither is there."""
    own = Path(path)
    return next((folder for folder in (own, own / kind) if (folder / KNOWN_BY[kind]).is_file()), None)


def foreign(run: Path) -> list[str]:
    """What lies in a folder that holds no run: names of files that a run would write over, or take for its own.

    Hidden files are left alone by a run, and count for nothing.
    """
    if not run.is_dir():
        return []
    return sorted(p.name for p in run.iterdir() if not p.name.startswith(".") and p.name not in (*NO_FILES, *KEPT))


def check_folder(run: Path) -> None:
    """Refuse a folder for a first run that is not empty.

    Raises:
        Occupied: Naming some of what is there.
    """
    found = foreign(run)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise Occupied(
            f"{run}: holds no run of a recipe, but other files ({', '.join(found[:3])}{more}); a run needs a folder of its own"
        )


def ledger_in(run: Path) -> str | None:
    """The file in which the trainings of a run directory are listed; None where it holds one training, or nothing."""
    return next((name for name in LEDGERS if (run / name).is_file()), None)


def check_kind(run: Path, ledger: str | None) -> None:
    """Refuse to go on in what another kind of command has written.

    Args:
        run: A run directory with a recipe.
        ledger: What whoever goes on lists its trainings in.

    Raises:
        RunError: Naming what is there. One that was killed before its first training is anybody's.
    """
    there = ledger_in(run)
    if there != ledger and (there is not None or (run / ENV_FILE).is_file()):
        raise RunError(
            f"{run}: holds {HOLDS[there]}, and the recipe makes {HOLDS[ledger]}, whose files would mix with it; {MOVE}"
        )


def check_one_policy(run: Path) -> None:
    """Refuse a directory of several policies where one is meant.

    Raises:
        RunError: Saying how to name one.
    """
    remedy = {
        FRONTS_FILE: f"choose one with `alignkit pick {run}`, or name the folder of one, which members.json lists",
        SWEEP_FILE: "name the folder of one of its runs",
    }
    there = ledger_in(run)
    if there in remedy:
        raise RunError(f"{run}: holds {HOLDS[there]}, which is several policies; {remedy[there]}")


def check_own_files(run: Path) -> None:
    """Refuse what is no directory, and one in which something has the name of what a run writes and is none of it.

    Raises:
        Occupied: Naming it: what a link points to would be written over, writing to a pipe may never end, and a file called
            `adapter` would be replaced.
    """
    there = next((path for path in (run, *run.parents) if path.exists()), run.parent)
    if not there.is_dir():
        raise Occupied(f"{there}: a file, and a run needs a folder of its own")
    for path in (run / name for name in (LOCK_FILE, *FILES)):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise Occupied(
                f"{path}: no file of the run's own, but a link, a pipe or a folder, and a run writes there", MOVE
            )
    for path in (run / name for name in FOLDERS):
        if path.exists() and not path.is_dir():
            raise Occupied(f"{path}: no folder of the run's own, but a file, and a run writes there", MOVE)
    for path in (run / name for name in RESULTS):
        is_ours = path.is_symlink() or any((path / name).is_file() for name in WRITTEN_LAST)
        if set(foreign(path)) - {CARD} and not is_ours:  # a kill may leave the card alone
            raise Occupied(f"{path}: holds no adapter or model, but other files, and a run replaces it", MOVE)


def delete_beginning(run: Path) -> list[str]:
    """Delete the record of a run that was killed between it and its recipe, when nothing else was made; returns its name."""
    if foreign(run) != [ENV_FILE]:
        return []
    try:
        ours = "identity" in read_json(run / ENV_FILE)
    except (RunError, OSError):
        return []
    if ours:
        (run / ENV_FILE).unlink()
    return [ENV_FILE] * ours


def written_by_run(run: Path) -> list[Path]:
    """What a run and its evaluation wrote there, in the order in which it is deleted."""
    found = [
        p
        for p in run.iterdir()
        if p.name in (*FILES, *FOLDERS) or CHECKPOINT.fullmatch(p.name) or ROUND.fullmatch(p.name)
    ]
    return sorted(found, key=lambda p: (LAST.index(p.name) + 1 if p.name in LAST else 0, p.name))


def delete_run(run: Path) -> None:
    """Delete what a run and its evaluation wrote; its recipe last, so that what a kill leaves is known for what it is.

    Raises:
        RunError: If something cannot be deleted.
    """
    for path in written_by_run(run):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise RunError(
                f"{error.filename or path}: cannot be deleted: {error.strerror}; mend that, and use --overwrite again"
            ) from error


def exchange(scratch: Path, target: Path) -> None:
    """Let a whole folder take the place of another; between the two there is never half of one."""
    before = target.with_name(f"{REPLACED}{target.name}")
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        os.replace(target, before)
    os.replace(scratch, target)
    shutil.rmtree(before, ignore_errors=True)


def delete_leftovers(run: Path) -> list[str]:
    """Delete what processes that are gone had begun to write, in a run directory and its results; returns the names."""
    gone = []
    for folder in (run, *(run / name for name in (*RESULTS, *KEPT))):
        for path in list(_leftovers(folder)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            gone.append(str(path.relative_to(run)))
    return gone


def _leftovers(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
        if path.name.startswith((WRITING, REPLACED)):
            begun = path.is_dir() and not path.is_symlink()
        else:
            scratch = SCRATCH.fullmatch(path.name)
            ours = scratch is not None and path.is_file() and _is_ours(scratch["name"], folder)
            begun = ours and scratch is not None and not lives(int(scratch["process"]))
        if begun:
            yield path


def _is_ours(name: str, folder: Path) -> bool:
    return name in FILES or folder.name in (*RESULTS, *KEPT)
