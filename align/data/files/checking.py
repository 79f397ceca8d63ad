"""Looks through local data files, which may come from strangers, in bounded memory before anything parses them.

`datasets` unpacks a file whole, whatever it unpacks to, and its parsers name neither line nor row. What is refused here:
bytes that are not UTF-8, NUL bytes, a line of more than 64 MiB, JSON that ends the process that parses it
(`align.data.files.json_depth`), archives, a compressed file that is cut short, damaged, or a bomb, a Parquet file that its own metadata
does not fit. A byte order mark at the beginning of a file is accepted.
"""

import bz2
import codecs
import csv
import gzip
import lzma
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets.config import HF_DATASETS_CACHE

from align.errors import DataError
from align.findings import printable

from .json_depth import harmless

MIB = 1 << 20
CHUNK = MIB
MAX_LINE = 64 * MIB
MAX_RATIO = 200
"""How many times its size a file may unpack to, once that is more than `FINE`; JSON of text unpacks to about 5 times."""
FINE = 1 << 30
TEXT = ("json", "jsonl", "csv")
COMPRESSION = ("gz", "zst", "xz", "bz2")
MAGIC = {
    b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2", b"PAR1": "parquet",
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"Rar!": "rar", b"7z\xbc\xaf\x27\x1c": "7z", b"\x04\x22\x4d\x18": "lz4",
}  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tgz", ".rar", ".7z", ".lz4")
READING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


def check_file(path: Path) -> None:
    """Look through one .json, .jsonl, .csv (compressed or not) or .parquet file.

    Raises:
        DataError: Saying what is wrong, at which line or byte, and what to do.
    """
    kinds = [suffix.lstrip(".") for suffix in path.suffixes]
    named = kinds[-1] if kinds and kinds[-1] in (*COMPRESSION, "parquet") else None
    with path.open("rb") as file:
        start = file.read(8)
    found = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)
    if found == "bz2" and named is None:
        found = None  # three letters are no proof
    if found != named:
        if found is None:
            raise DataError(f"it is no {named} file, whatever its name says; fetch it again")
        archive = f".{found}" in ARCHIVES
        raise DataError(f"it is {found}, by its first bytes; {'unpack it' if archive else 'name it accordingly'}")
    if named == "parquet":
        return _check_parquet(path)
    with path.open("rb") as raw, unpacked(raw, path) as file:
        chunks = _bounded(file, raw) if named else iter(lambda: file.read(CHUNK), b"")
        _check_text(_with_one_header(chunks) if "csv" in kinds else harmless(chunks))
    return None


def check_folder(folder: Path) -> None:
    """Look through all data files of a folder, at any depth.

    `datasets` 5 runs no loading script. A folder with one is refused all the same: its data are not what they seem.

    Raises:
        DataError: Naming the file.
    """
    scripts = sorted(path.name for path in folder.glob("*.py"))
    if scripts:
        raise DataError(
            f"{printable(scripts[0])}: a data folder with Python code; loading scripts are not run: name a data file instead"
        )
    for card in ("README.md", ".huggingface.yaml"):
        if (folder / card).is_file():
            _check_card(folder / card)
    for path in sorted(folder.rglob("*")):
        kinds = [suffix.lstrip(".") for suffix in path.suffixes if suffix.lstrip(".") not in COMPRESSION]
        if not path.is_file():
            continue
        name = printable(path.relative_to(folder).as_posix(), 200)
        if path.suffix in ARCHIVES:
            raise DataError(f"{name}: an archive; unpack it, or name the file that is meant")
        if kinds and kinds[-1] in (*TEXT, "parquet"):
            try:
                check_file(path)
            except DataError as error:
                raise DataError(f"{name}: {error}") from None


@contextmanager
def unpacked(raw: BufferedIOBase, path: Path) -> Iterator[BufferedIOBase]:
    """The content of an open file, unpacked as it is read if its name says so; damage is told as a DataError.

    Raises:
        DataError: If the file is cut short or damaged, or nothing here can unpack it.
    """
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
    try:
        if path.suffix == ".zst":
            yield _zstd(raw)
        else:
            yield openers[path.suffix](raw, "rb") if path.suffix in openers else raw
    except DataError:
        raise
    except Exception as error:
        if not isinstance(error, READING_ERRORS) and type(error).__name__ != "ZstdError":
            raise
        raise DataError(f"cut short or damaged ({error}); fetch it again") from None


def _zstd(raw: BufferedIOBase) -> BufferedIOBase:
    try:
        import zstandard  # noqa: PLC0415 # pyright: ignore[reportMissingImports] - `datasets` needs it too
    except ImportError:
        raise DataError("reading .zst needs zstandard: pip install zstandard") from None
    return BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))


def _bounded(file: BufferedIOBase, raw: BufferedIOBase) -> Iterator[bytes]:
    """The unpacked content in pieces, as long as it is no more than a data set has, or this disk."""
    room, read = _free(), 0
    while chunk := file.read(CHUNK):
        read += len(chunk)
        if read > max(FINE, MAX_RATIO * raw.tell()):
            raise DataError(
                f"its first {raw.tell() / MIB:,.1f} MiB unpack to {read / MIB:,.0f} MiB, over {MAX_RATIO} times as much: a "
                "decompression bomb; if it is not, unpack it yourself and name the result"
            )
        if read > room:
            raise DataError(f"it unpacks to more than the {room / MIB:,.0f} MiB free in {HF_DATASETS_CACHE}")
        yield chunk


def _free() -> int:
    folder = Path(HF_DATASETS_CACHE)
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _check_text(chunks: Iterable[bytes]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, line, line_start = 0, 1, 0  # bytes and lines before the piece in hand
    for chunk in chunks:
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            _refuse_bytes(chunk, at, error.start - pending, line, error.reason)
        zero = chunk.find(b"\0")
        if zero >= 0:
            raise DataError(
                f"line {line + chunk.count(10, 0, zero)}: a NUL byte, at byte {at + zero}; this is no text file"
            )
        first = chunk.find(b"\n")
        end = at + (first if first >= 0 else len(chunk))
        if end - line_start > MAX_LINE:
            raise DataError(
                f"line {line}: longer than {MAX_LINE // MIB} MiB; write one row a line (.jsonl), and leave such a row out"
            )
        if first >= 0:
            line += chunk.count(b"\n")
            line_start = at + chunk.rfind(b"\n") + 1
        at += len(chunk)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError(f"line {line}: not UTF-8: it ends within a character, at byte {at}") from error


def _refuse_bytes(chunk: bytes, at: int, index: int, line: int, reason: str) -> None:
    if at == 0 and chunk[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError("it is UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`")
    raise DataError(
        f"line {line + chunk.count(10, 0, max(index, 0))}: not UTF-8 at byte {at + index} ({reason}); "
        "convert it, for instance with `iconv -f LATIN1 -t UTF-8`"
    )


def _check_parquet(path: Path) -> None:
    size, read = path.stat().st_size, 0
    most = max(FINE, MAX_RATIO * size)
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                read += batch.nbytes
                if read > most:
                    raise DataError(
                        f"it unpacks to more than {most / MIB:,.0f} MiB, over {MAX_RATIO} times its {size / MIB:,.1f} MiB"
                    )
            _refuse_twice(file.schema_arrow.names)
            said = file.metadata.num_rows
            rows = sum(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError) as error:
        raise DataError(f"damaged Parquet ({str(error).partition(chr(10))[0]}); fetch it again") from None
    if said != rows:
        raise DataError(f"damaged Parquet: it claims {said} rows and has {rows}; fetch it again")


def _with_one_header(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Passes the pieces of a CSV file on, if the columns in its first line have names of their own."""
    for number, chunk in enumerate(chunks):
        if number == 0:
            lines = chunk.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
            _refuse_twice([name.strip() for name in next(csv.reader(lines), [])])
        yield chunk


def _refuse_twice(names: Sequence[str]) -> None:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise DataError(f"line 1: the column {printable(twice)!r} is there twice; rename one, or take it out")


def _check_card(card: Path) -> None:
    """A card's front matter may name the data files; they must lie in its own folder."""
    text = card.read_text(encoding="utf-8", errors="replace")[:MIB]
    front = re.match(r"\s*---\s*\n(.*?)\n---", text, re.DOTALL)
    text = front[1] if front else text if card.suffix == ".yaml" else ""
    try:
        settings = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{card.name}: its front matter is not valid YAML: {' '.join(str(error).split())}") from None
    configs = settings.get("configs") if isinstance(settings, dict) else None
    for value in _strings(configs, set()):
        if "://" in value or os.path.isabs(value) or ".." in Path(value).parts:
            raise DataError(
                f"{card.name}: it takes data from {printable(value)!r}, outside of the folder; name the file instead"
            )


def _strings(value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and id(value) not in seen:  # aliases may name one list very often
        seen.add(id(value))
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item, seen)
