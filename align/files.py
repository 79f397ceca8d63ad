"""Reads and writes small files, digests large ones, and finds the folder of what is kept between runs."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import DataError, RunError

MAX_JSON = 64 << 20
SCRATCH = ".alignkit-"
_ON_A_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_local(name: str) -> bool:
    """Whether a model or data set is a path of this machine, and no name on a hub."""
    return Path(name).exists() or not _ON_A_HUB.fullmatch(name)


def called(path: str | Path) -> str:
    """The name of a folder, also where it is given as `.` or `..`; links are not followed."""
    return Path(os.path.abspath(path)).name


def digest_of(value: Any) -> str:
    """sha256 of what JSON makes of a value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=plain_json).encode()).hexdigest()


def plain_json(value: Any) -> Any:
    """What stands in JSON for a value that it has no form for: a set in order, else its text."""
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: Naming the file and what to do, if it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise not_written(path, error) from error


def append_synced(path: Path, content: bytes) -> None:
    """Add to the end of a file, made with its folder if it is missing, and return when the disk has it.

    Raises:
        OSError: Naming the file and what to do, if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise not_written(path, error) from error


def whole_lines(path: Path, *, mend: bool = True) -> bytes:
    """What is in a file up to the end of its last whole line, nothing if it is not there.

    Args:
        path: Of lines that were appended.
        mend: Whether to cut off what a kill left of a line.
    """
    content = path.read_bytes() if path.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if mend and whole < len(content):
        os.truncate(path, whole)
    return content[:whole]


def not_written(path: Path, error: BaseException) -> OSError:
    """The error to raise where a file could not be written; Python's own often names no file."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return OSError(f"{path}: could not be written: {reason}; make room or mend the folder, and run the command again")


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block ends, unless something is there by then.

    What processes that are gone left of the same is deleted first.

    Raises:
        RunError: If `target` is there when the block ends, and is no empty folder.
        OSError: Naming the folder, if it cannot be written.
    """
    with scratch_folder(target) as scratch:
        yield scratch
        try:
            os.rename(scratch, target)  # over an empty folder at most
        except OSError as error:
            if target.exists():
                raise RunError(f"{target}: appeared while it was being made; choose another name") from error
            raise


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` for what will be there, deleted after the block; those of processes that are gone, too.

    Raises:
        OSError: Naming `target`, if something cannot be written there.
    """
    for left in target.parent.glob(f"{SCRATCH}*"):
        number = left.name.removeprefix(SCRATCH).partition("-")[0]
        if left.is_dir() and not left.is_symlink() and number.isdecimal() and not lives(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f"{SCRATCH}{os.getpid()}-", ignore_cleanup_errors=True
        ) as folder:
            scratch = Path(folder, target.name)
            scratch.mkdir()
            yield scratch
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and (error.errno is None or _elsewhere(error.filename, target)):
            raise
        raise not_written(target, error) from error


def _elsewhere(name: Any, target: Path) -> bool:
    """Whether an error is about another place than the one written to, such as a source that cannot be read."""
    return isinstance(name, str) and not Path(name).is_relative_to(target.parent)


def move_new(source: Path, target: Path) -> None:
    """Give a file its name, if nothing has that name by now.

    Raises:
        RunError: If something has.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise RunError(
            f"{target}: appeared while it was being made, and is left as it is; choose another name"
        ) from None
    except OSError:  # a file system without links
        if target.exists() or target.is_symlink():
            raise RunError(
                f"{target}: appeared while it was being made, and is left as it is; choose another name"
            ) from None
        os.rename(source, target)


def lives(process: int) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path, *, replace: bool = False) -> None:
    """Write a JSON Lines file, under its name only when it is whole.

    Args:
        rows: One a line.
        path: The file.
        replace: Whether it takes the place of one that is there.

    Raises:
        RunError: If the file is there when it would get its name, and is not to be replaced.
        OSError: Naming the file, if it cannot be written.
    """
    with scratch_folder(path) as folder:
        part = Path(folder, path.name)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        os.replace(part, path) if replace else move_new(part, path)


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Refuse a place in which a command could not write in the end; asked before the command works.

    Args:
        path: What will be written. Folders that it lies in may be missing.
        folder: Whether it is a folder.

    Raises:
        RunError: Naming the path, what is wrong and what to do.
    """
    reason = unwritable(path, folder=folder)
    if reason is not None:
        raise RunError(f"{path}: cannot be written: {reason}; name another place, or give this one room and rights")


def unwritable(path: Path, *, folder: bool = False) -> str | None:
    """Why nothing can be written at a path, or None.

    A file without a name is made in the nearest folder that is there, and is gone at once: rights alone say too little,
    and root has all of them, in /proc too.
    """
    try:
        if path.exists() and not (path.is_dir() if folder else path.is_file()):
            return "it is no folder" if folder else "it is no file"
        place = path.absolute() if folder else path.absolute().parent
        there = next(each for each in (place, *place.parents) if each.exists())
        if not there.is_dir():
            return f"{there} is no folder"
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return error.strerror or str(error)


def refuse_input(out: Path, *inputs: Path | str) -> None:
    """Refuse a file of figures in place of a file that they are made from, or where it could not be written.

    Raises:
        RunError: Saying which.
    """
    if any(out.resolve() == Path(each).resolve() for each in inputs):
        raise RunError(f"{out}: is what is read, and the figures would take its place; name another file")
    check_writable(out)


def refuse_out(out: Path) -> None:
    """Refuse a name under which a command cannot write rows.

    Raises:
        DataError: Saying what is wrong with it.
        RunError: If nothing can be written there.
    """
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: rows are written as .jsonl; give it such a name")
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: is there already; name another file, or remove it")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent}: no such folder; make it first")
    check_writable(out)


def read_json(path: Path) -> dict[str, Any]:
    """A settings file of a model folder.

    Raises:
        RunError: If it is not one JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise RunError(f"{path}: larger than {MAX_JSON >> 20} MiB; that is no settings file")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{path}: damaged: not valid JSON ({str(error).partition(chr(10))[0]}); fetch it again"
        ) from None
    if not isinstance(values, dict):
        raise RunError(f"{path}: damaged: expected an object; fetch it again")
    return values


def cache_dir() -> Path:
    """Where converted models are kept: `$ALIGNKIT_CACHE`, else `~/.cache/alignkit`."""
    return Path(os.environ.get("ALIGNKIT_CACHE") or Path.home() / ".cache" / "alignkit")


def readable_as_usual(folder: Path) -> None:
    """Give a temporary folder, which is its maker's alone, and what is in it the rights that other files get."""
    usual = os.umask(0o022)
    os.umask(usual)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~usual)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
