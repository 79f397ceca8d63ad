"""Writes a run directory's own files, and finds the way back into it for a later run.

RUN/  recipe.resolved.yaml   replays the run          metrics.jsonl   every logged value, one line a step
      env.json               versions, data, reference  checkpoint-*/  adapter/ (or model/)  README.md
      .lock                  held by the process that writes the run
"""

import fcntl
import json
import logging
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.errors import RunError
from align.files import check_writable, write_text

from .agreement import SHARED, there_everywhere
from .contents import (
    CHOOSE,
    FRONTS_FILE,
    LOCK_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    ROUNDS_FILE,
    check_folder,
    check_kind,
    check_own_files,
    delete_beginning,
    delete_leftovers,
)

logger = logging.getLogger(__name__)

READ_BY_ALL = {ROUNDS_FILE: "rounds", FRONTS_FILE: "policies"}
"""What every process reads of a run whose main process writes it, by the file in which its trainings are listed."""
PACKAGES = ("alignkit", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "numpy")


@contextmanager
def claimed(run: Path, *, resume: bool, overwrite: bool, ledger: str | None = None) -> Iterator[None]:
    """The run directory, for this run alone while the block lasts; what killed processes had begun there is deleted.

    Args:
        run: Made if it is not there, with the folders that it lies in; a block that fails before anything is written there
            leaves none of them.
        resume: Whether to go on in a run that is there.
        overwrite: Whether a run that is there will be replaced. Nothing of it is deleted here, see `delete_run`.
        ledger: The file in which its trainings are listed, where it has several.

    Raises:
        RunError: If another process writes it, a run is there and neither is asked for, a run of another kind, or no run but
            other files; or if its processes read what the main one writes there, and it is not the same folder on every node.
    """
    if resume and overwrite:
        raise RunError(
            "--resume and --overwrite contradict each other: one goes on with the run that is there, the other deletes it"
        )
    state = PartialState()
    check_own_files(run)
    check_writable(run, folder=True)
    with _alone(run) if state.is_main_process else nullcontext():
        if state.is_main_process:
            begun = (run / RECIPE_FILE).is_file()
            if begun and not resume and not overwrite:
                raise RunError(
                    f"{run} already holds a run; continue it with --resume auto, replace it with --overwrite, or {CHOOSE}"
                )
            if begun and not overwrite:
                check_kind(run, ledger)
            left = []
            if not begun:
                left = delete_beginning(run)
                check_folder(run)
            for name in left + delete_leftovers(run):
                logger.warning("%s: deleted, a process that was killed had left it", run / name)
        state.wait_for_everyone()
        run.mkdir(parents=True, exist_ok=True)  # of this process's node
        if ledger in READ_BY_ALL:
            told = f"written by the main process, whose {READ_BY_ALL[ledger]} every process reads"
            there_everywhere(run / LOCK_FILE, lambda file: file.read_text(encoding="utf-8"), told=told, remedy=SHARED)
        yield


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    before = {LOCK_FILE, *os.listdir(run)}
    made_lock = not (run / LOCK_FILE).exists()
    # POSIX locks end with the process that took them; flock's would live on in its data loader's workers
    with (run / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise RunError(
                f"{run}: {file.read() or 'another process'} is writing this run; wait for its end, or choose another "
                "train.output_dir"
            ) from error
        except OSError as error:
            logger.warning("%s: the file system has no locks (%s); nothing keeps another run out", run, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        except BaseException:
            if made_lock and {*os.listdir(run)} == before:
                (run / LOCK_FILE).unlink()
                with suppress(OSError):  # somebody has put something there
                    for folder in made:
                        folder.rmdir()
            raise


def environment(*, ref: dict[str, Any], data: dict[str, Any], device: str, processes: int) -> dict[str, Any]:
    """What `env.json` records. No value of any environment variable is in it."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "device": device,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "ref": ref,
        "data": data,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the checkout that this package is imported from, with `+dirty`, or None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+dirty" if changed.strip() else "")


class MetricsFile(TrainerCallback):
    """Appends every logged record to `metrics.jsonl`; a resumed run first drops what it is about to repeat."""

    def __init__(self, run: Path) -> None:
        self.path = run / METRICS_FILE

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the lines up to the step that training starts from."""
        if state.is_world_process_zero and not 0 < state.global_step == state.max_steps:
            done = read_metrics(self.path) if state.global_step else []
            kept = [r for r in done if r["step"] <= state.global_step and "train_runtime" not in r]
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append one record. Values that JSON cannot hold become text: "nan", "inf"."""
        if state.is_world_process_zero and logs:
            record = {"step": state.global_step, **{k: _plain(v) for k, v in logs.items()}}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a line that is none, as a kill leaves the last one, is left out."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def recorded_reference(values: Any, path: Path) -> dict[str, Any]:
    """The identity of a reference as a file of a run records it.

    Raises:
        RunError: If it is none.
    """
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("kind", "digest")):
        raise RunError(f"{path}: damaged, or not written by a run: no reference with kind and digest in it")
    return {"model": None, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
