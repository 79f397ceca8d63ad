"""Seals checkpoints with a manifest of every file, written last, that says which run they are of.

The Trainer writes a checkpoint file by file. `seal` lists them with size and sha256 once all processes are done, so a
checkpoint that a kill cut short has no manifest, and one that was damaged later does not agree with it. The folder of
a finished run's adapter or model is sealed likewise.
"""

import json
import logging
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers.trainer_pt_utils import safe_globals

from align.errors import RunError
from align.files import read_json, sha256, write_text

from .contents import CHECKPOINT
from .identity import Identity, identity_from

logger = logging.getLogger(__name__)

MANIFEST, STATE = "alignkit.json", "trainer_state.json"
DEEPSPEED = "global_step"  # how its folder in a checkpoint begins
PICKLED = (".pt", ".pth", ".bin")
NOT_LOADED = ("training_args.bin",)  # the Trainer writes it and never reads it


def seal(
    folder: Path,
    *,
    step: int,
    processes: int,
    identity: Identity,
    ends_at: int | None = None,
    only: tuple[str, ...] = ("",),
) -> None:
    """Write the manifest of a folder that is complete on disk.

    Args:
        folder: The checkpoint, or what a run ends with.
        step: Optimizer steps done.
        processes: How many processes wrote it; another number resumes it, but not to the same values.
        identity: Of the run.
        ends_at: With how many steps the run ends.
        only: Endings of the names that are listed.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and path.name.endswith(only):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    written = {
        "step": step,
        "ends_at": ends_at,
        "processes": processes,
        "reference": identity.reference,
        "identity": identity.as_json(),
        "files": files,
    }
    write_text(folder / MANIFEST, json.dumps(written, indent=1) + "\n")


def is_foreign(folder: Path) -> bool:
    """Whether a checkpoint was written by a Trainer, and not sealed."""
    return (folder / STATE).is_file() and not (folder / MANIFEST).exists()


def step_of_foreign(folder: Path) -> int:
    """The step of a checkpoint that is not sealed, and holds nothing but data.

    Raises:
        RunError: If it is none, does not say its step, or would run code when it is read.
    """
    if not is_foreign(folder):
        what = (
            "it is sealed, and needs no --unsealed" if (folder / MANIFEST).exists() else f"no checkpoint (no {STATE})"
        )
        raise RunError(f"{folder}: {what}")
    step = _step_said(folder)
    _refuse_code(folder)
    return step


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
        step, processes = int(found["step"]), int(found["processes"])
        ends_at = None if found.get("ends_at") is None else int(found["ends_at"])
        if step < 0 or processes < 1 or not files or (ends_at is not None and ends_at < step):
            raise ValueError("no run writes such a manifest")
        return {
            "step": step,
            "ends_at": ends_at,
            "processes": processes,
            "reference": found["reference"],
            "identity": identity_from(found.get("identity") or {"reference": found["reference"]}),
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
    _refuse_code(folder)
    unlisted = [p.name for p in folder.iterdir() if p.name not in found["files"] and _is_loaded(p)]
    if unlisted:
        raise RunError(f"{folder}: {unlisted[0]} is not in {MANIFEST}: something else wrote it; remove it")
    if (folder / STATE).is_file():
        said = _step_said(folder)
        if said != found["step"]:
            raise RunError(f"{folder}: {MANIFEST} is damaged: it says step {found['step']}, and {STATE} says {said}")
    return found


def _is_loaded(path: Path) -> bool:
    return (path.suffix in (".safetensors", *PICKLED) and path.name not in NOT_LOADED) or path.name == STATE


def _step_said(folder: Path) -> int:
    try:
        return int(read_json(folder / STATE)["global_step"])
    except (OSError, ValueError, KeyError, TypeError, RunError):
        raise RunError(f"{folder}: {STATE} is damaged") from None


def refuse_without_optimizer(folder: Path) -> None:
    """Refuse to go on from a checkpoint that holds weights alone.

    Raises:
        RunError: If there is no state of an optimizer, which would begin anew without a word.
    """
    if not (any(folder.glob("optimizer*")) or any(folder.glob(f"{DEEPSPEED}*/*optim_states.pt"))):
        raise RunError(
            f"{folder}: holds no state of the optimizer (train.save_only_model), so that no run goes on from it to the "
            "same numbers; begin a new one from its adapter with `start: {adapter: ...}`"
        )


def _refuse_code(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in PICKLED and path.name not in NOT_LOADED:
            _only_data(path, folder)


def _only_data(path: Path, folder: Path) -> None:
    of_deepspeed = path.relative_to(folder).parts[0].startswith(DEEPSPEED)
    own = _deepspeeds() if of_deepspeed else []
    try:
        with safe_globals(), torch.serialization.safe_globals(own):
            torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except UnpicklingError:
        told = f"{folder}: {path.name} holds more than tensors and numbers; reading it could run code"
        if of_deepspeed and not own:
            told = f"{folder}: {path.name} was written by DeepSpeed, which is not installed: pip install 'alignkit[deepspeed]'"
        raise RunError(told) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{folder}: {path.name} cannot be read: {reason}") from None


def _deepspeeds() -> list[Any]:
    """The classes that DeepSpeed writes into its checkpoints beside tensors: a setting, a place in a buffer, a scale.

    Empty where it is not installed.
    """
    if find_spec("deepspeed") is None:
        return []
    from deepspeed.runtime.fp16.loss_scaler import LossScaler  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - an extra
    from deepspeed.runtime.zero.config import ZeroStageEnum  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - as above
    from deepspeed.utils.tensor_fragment import fragment_address  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - as above

    return [LossScaler, ZeroStageEnum, fragment_address]


def numbered(run: Path) -> list[tuple[int, Path]]:
    """Step and folder of everything there that is named like a checkpoint, in order."""
    return sorted((int(found[1]), path) for path in run.glob("*") if (found := CHECKPOINT.fullmatch(path.name)))


def newest_checkpoint(run: Path, own: str | None = None) -> Path | None:
    """The latest intact checkpoint of a run, or None; those passed over, and why, are logged.

    Args:
        run: The run directory.
        own: Id of the run it must be of. Without one, the checkpoints of the run that began last are looked at.
    """
    intact = []
    for step, path in reversed(numbered(run)):
        try:
            of = check(path)["identity"].run
        except RunError as error:
            logger.warning("passed over: %s", error)
            continue
        if own is not None and of != own:
            logger.warning("passed over: %s: of another run (%s) than the directory's (%s)", path, of or "unknown", own)
            continue
        if own is not None:
            return path
        intact.append((of or "", step, path))
    return max(intact)[2] if intact else None


def rotate(run: Path, own: str | None, step: int, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints of a run beyond a number of them, and none of another run.

    Args:
        run: The run directory.
        own: Id of the run.
        step: Of the checkpoint just written; it and later ones stay. By step, since clocks are set back.
        limit: How many are kept; None or 0 keeps all.
        best: Folder of the best one, which stays.
    """
    if not limit or limit < 0:
        return
    mine = [path for number, path in numbered(run) if number <= step and _of(path) == own]
    kept = {mine[-1].name, *([Path(best).name] if best else [])} if mine else set()
    spare = [path for path in mine if path.name not in kept]
    for path in spare[: max(0, len(mine) - max(limit, len(kept & {p.name for p in mine})))]:
        (path / MANIFEST).unlink(missing_ok=True)  # first, so that half a checkpoint is known for one
        shutil.rmtree(path, ignore_errors=True)


def _of(path: Path) -> str | None:
    try:
        return manifest(path)["identity"].run
    except RunError:
        return "not known"


def checkpoint_to_resume(run: Path, resume: str | None, own: str | None = None) -> Path | None:
    """The checkpoint that `--resume` means; None to begin at the start, where the run has not saved anything yet.

    Raises:
        RunError: If `resume` names something that is no intact checkpoint, or "auto" finds checkpoints and none that
            can be used.
    """
    if resume is None:
        return None
    if resume == "auto":
        found, there = newest_checkpoint(run, own), [path for _, path in numbered(run)]
        cut_short = len(there) == 1 and not (there[0] / MANIFEST).exists()  # while the first one was saved
        if found is None and there and not cut_short:
            try:
                check(there[-1])
                why = f"{there[-1]}: of another run than the directory's"
            except RunError as error:
                why = str(error)
            raise RunError(
                f"{run}: none of {len(there)} checkpoints can be used, and starting over would lose them ({why}); restore "
                "one, or start a new run with --overwrite or another train.output_dir"
            )
        return found
    try:
        check(Path(resume))
    except RunError as error:
        other = "`--resume auto` takes the last intact one"
        if is_foreign(Path(resume)):
            other = f"TRL's own trainers write them so: --unsealed goes on from it, if it is whole; {other}"
        raise RunError(f"--resume: {error}; {other}") from None
    return Path(resume)
