"""Reads and writes small files, digests large ones, and finds the folder of what is kept between runs."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import DataError, RunError

MAX_JSON = 64 << 20


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a JSON Lines file, under its name only when it is whole."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".alignkit-") as folder:
        part = Path(folder, path.name)
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        part.rename(path)


def refuse_out(out: Path) -> None:
    """Refuse a name under which a command cannot write rows.

    Raises:
        DataError: Saying what is wrong with it.
    """
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: rows are written as .jsonl; give it such a name")
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: is there already; name another file, or remove it")
    if not out.parent.is_dir():
        raise DataError(f"{out.parent}: no such folder; make it first")


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


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
