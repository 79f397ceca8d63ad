"""Reading and writing small files, digests of large ones, and the folder of what is kept between runs."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import RunError

MAX_JSON = 64 << 20


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


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
