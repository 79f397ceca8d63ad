"""Keeps the rows of a `data` section on disk as training reads them, for `data.streaming`, so that memory does not grow with them.

ROOT/rows/KEY/  kept.json        sets, their digests and those of the files, shares, and what was said while they were read
                0, 1, ...        a set each, as `Dataset.save_to_disk` writes it; what is made of it, such as its tokens, lies beside it

KEY is a digest of all that determines the rows: the section, the bytes of its files, and the code that reads them. A folder
gets its name once it is whole. Any may be deleted: its rows are then read again.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
from datasets import Dataset

from align.errors import RunError
from align.files import cache_dir, digest_of, not_written, sha256, write_text

logger = logging.getLogger(__name__)

RECORD = "kept.json"
LINE = json.JSONEncoder(sort_keys=True, ensure_ascii=False)  # `json.dumps` would make one for each row
DIGESTED = 1000  # rows that are Python objects together
READ_BY = logging.getLogger("align.data")
Sets = tuple[dict[str, Dataset], list[dict[str, Any]]]


def data_digest(dataset: Dataset) -> dict[str, Any]:
    """Rows and sha256 of a normalised data set, in order."""
    for file in dataset.cache_files[:1]:
        record = Path(file["filename"]).parents[1] / RECORD
        known = json.loads(record.read_text()) if record.is_file() else {"sets": []}
        for one in known["sets"]:
            if one["fingerprint"] == dataset._fingerprint:  # of which any change has another
                return one["digest"]
    digest = hashlib.sha256()
    parts: Any = dataset.iter(batch_size=DIGESTED)  # a row at a time takes three times as long
    for part in parts:
        for row in zip(*part.values(), strict=True):
            line = dict(zip(part, row, strict=True))
            digest.update(LINE.encode(line).encode() + b"\n")
    return {"rows": len(dataset), "sha256": digest.hexdigest()}


def kept(identity: Any, make: Callable[[Path], Sets]) -> Sets:
    """Sets of rows from the disk, which is given them first if they are not there.

    Args:
        identity: What determines the rows besides our code. JSON has a form for it.
        make: Reads them, and may put what it does not hold in memory into the folder it is given.

    Returns:
        The sets by name, in memory as far as they are looked at, and the shares of sources.

    Raises:
        RunError: If the disk does not take them.
    """
    key = digest_of([reading_code(), metadata.version("datasets"), identity])[:32]
    folder = cache_dir() / "rows" / key
    found = _found(folder)
    if found is not None:
        sets, record = found
        for line in record["said"]:
            READ_BY.warning("%s", line)
        return sets, record["shares"]
    scratch = folder.with_name(f".writing-{uuid4().hex}")
    try:
        scratch.mkdir(parents=True)
        shares = _write(scratch, make)
        if folder.exists():  # damaged
            shutil.rmtree(folder)
        os.replace(scratch, folder)
    except (OSError, pa.ArrowException) as error:
        if (found := _found(folder)) is not None:  # another process was faster
            return found[0], found[1]["shares"]
        raise not_written(scratch, error) if isinstance(error, OSError) else RunError(f"{scratch}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    logger.warning("%s: holds the rows for other runs; it may be deleted", folder)
    sets, _ = _found(folder) or ({}, {})
    return sets, shares


def _write(scratch: Path, make: Callable[[Path], Sets]) -> list[dict[str, Any]]:
    with _heard() as said:
        sets, shares = make(scratch / "parts")
    written = []
    for number, (name, dataset) in enumerate(sets.items()):
        dataset.save_to_disk(scratch / str(number))
        again = Dataset.load_from_disk(scratch / str(number))
        files = {str(path.relative_to(scratch)): sha256(path) for path in sorted((scratch / str(number)).iterdir())}
        written.append({"name": name, "fingerprint": again._fingerprint, "digest": data_digest(again), "files": files})
    del sets
    shutil.rmtree(scratch / "parts", ignore_errors=True)
    write_text(scratch / RECORD, json.dumps({"sets": written, "shares": shares, "said": said}, indent=2) + "\n")
    return shares


def _found(folder: Path) -> tuple[dict[str, Dataset], dict[str, Any]] | None:
    """The sets of a folder and its record, or None if it is not there, or not what was written."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record = json.loads((folder / RECORD).read_text())
        for one in record["sets"]:
            for name, digest in one["files"].items():
                if sha256(folder / name) != digest:
                    raise ValueError(f"{name} is not what was written")
        sets = {one["name"]: Dataset.load_from_disk(folder / str(n)) for n, one in enumerate(record["sets"])}
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        logger.warning("%s is damaged (%s): its rows are read again", folder, error)
        return None
    return sets, record


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What is said of the rows while they are read."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    READ_BY.addHandler(handler)
    try:
        yield said
    finally:
        READ_BY.removeHandler(handler)


@functools.cache
def reading_code() -> str:
    """A digest of the modules that read rows."""
    own = Path(__file__).parent
    return digest_of([(str(path.relative_to(own)), sha256(path)) for path in sorted(own.rglob("*.py"))])
