"""Seals checkpoints with a manifest of every file, written last, so that a broken one is passed over.

The Trainer writes a checkpoint file by file. `seal` lists them with size and sha256 once all processes are done, so a
checkpoint that a kill cut short has no manifest, and one that was damaged later does not agree with it.
"""

import json
import logging
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers.trainer_pt_utils import safe_globals

from align.errors import RunError
from align.files import sha256, write_text

logger = logging.getLogger(__name__)

MANIFEST = "alignkit.json"
PICKLED = (".pt", ".pth", ".bin")
NOT_LOADED = ("training_args.bin",)  # the Trainer writes it and never reads it


def seal(folder: Path, *, step: int, processes: int, reference: dict[str, Any] | None) -> None:
    """Write the manifest of a checkpoint that is complete on disk.

    Args:
        folder: The checkpoint.
        step: Optimizer steps done.
        processes: How many processes wrote it; another number resumes it, but not to the same values.
        reference: Identity of the reference, as `align.train.reference_identity` gives it.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    written = {"step": step, "processes": processes, "reference": reference, "files": files}
    write_text(folder / MANIFEST, json.dumps(written, indent=1) + "\n")


def manifest(folder: Path) -> dict[str, Any]:
    """What `seal` wrote.

    Raises:
        RunError: If there is none, or it is not readable.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RunError(f"{folder}: it was not written to its end (no {MANIFEST})")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in found["files"].items()}
        return {
            "step": int(found["step"]),
            "processes": int(found["processes"]),
            "reference": found["reference"],
            "files": files,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{folder}: {MANIFEST} is damaged") from None


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as they were written, and hold nothing but data.

    Raises:
        RunError: Saying which file is missing, cut short, damaged, or would run code when it is read.
    """
    found = manifest(folder)
    for name, (size, digest) in found["files"].items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(f"{folder}: {MANIFEST} names {name!r}, which lies outside of it")
        if not path.is_file():
            raise RunError(f"{folder}: {name} is missing")
        if path.stat().st_size != size:
            raise RunError(f"{folder}: {name} has {path.stat().st_size} bytes, {size} were written")
        if sha256(path) != digest:
            raise RunError(f"{folder}: {name} is damaged: its sha256 is not that of what was written")
    for path in folder.rglob("*"):
        if path.suffix in PICKLED and path.name not in NOT_LOADED:
            _only_data(path, folder)
    return found


def _only_data(path: Path, folder: Path) -> None:
    try:
        with safe_globals():
            torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except UnpicklingError:
        raise RunError(
            f"{folder}: {path.name} holds more than tensors and numbers; reading it could run code"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{folder}: {path.name} cannot be read: {reason}") from None


def newest_checkpoint(run: Path) -> Path | None:
    """The latest intact checkpoint of a run, or None; those passed over, and why, are logged."""
    numbered = [(int(p.name.split("-")[1]), p) for p in run.glob("checkpoint-*") if p.name.split("-")[1].isdigit()]
    for _, path in sorted(numbered, reverse=True):
        try:
            check(path)
        except RunError as error:
            logger.warning("passed over: %s", error)
            continue
        return path
    return None


def checkpoint_to_resume(run: Path, resume: str | None) -> Path | None:
    """The checkpoint that `--resume` means.

    Raises:
        RunError: If `resume` names something that is no intact checkpoint.
    """
    if resume is None:
        return None
    if resume == "auto":
        return newest_checkpoint(run)
    try:
        check(Path(resume))
    except RunError as error:
        raise RunError(f"--resume: {error}; `--resume auto` takes the last intact one") from None
    return Path(resume)
