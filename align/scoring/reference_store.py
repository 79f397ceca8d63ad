"""Keeps log-probabilities of the reference on disk, computed once for all runs that would compute the same.

ROOT/FINGERPRINT/  identity.json        what, besides the tokens, the values depend on; for people, never relied upon
                   HASH.safetensors     a segment: `keys` uint8 (n, 16) and `values` float64 (n,); never changed
                   *.damaged            a segment that was not what its name says; never read, may be deleted
                   .writing-*           left by a writer that was killed; never read, removed after a day

There is no lock. A file gets its name only once it is whole, and no name is used twice: each segment carries a number of
its own. So a process may merge segments at any time, and delete those it has read once the one that replaces them is
there; one that reads meanwhile finds a listed file gone and lists again.
"""

import hashlib
import json
import logging
import os
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from jaxtyping import Float64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from align.files import cache_dir

logger = logging.getLogger(__name__)

FORMAT = 1
"""Part of every identity: raise it when a key or a value comes to mean something else."""
KEY_BYTES = 16
KEY = np.dtype(f"S{KEY_BYTES}")  # compares like bytes: of keys of one length, zeros at the end are no exception
SUFFIX = ".safetensors"
MOST_SEGMENTS = 64
"""Merge when there are more segments than this of less than `MERGE_BELOW` bytes."""
MERGE_BELOW = 16 * 2**20
DAY = 86400.0

Rows = tuple[np.ndarray, Float64[np.ndarray, " _rows"]]


def sequence_key(prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> bytes:
    """The key of a sequence as it was really scored, that is after truncation.

    >>> sequence_key([1, 2], [3]) == sequence_key([1], [2, 3])
    False
    """
    prompt, total = len(prompt_ids), len(prompt_ids) + len(completion_ids)
    packed = struct.pack(f"<{1 + total}q", prompt, *prompt_ids, *completion_ids)
    return hashlib.blake2b(packed, digest_size=KEY_BYTES).digest()


class ReferenceStore:
    """Summed log-probabilities, in nats, of single sequences, found by `sequence_key`.

    A value that was added or read once stays what it is for this object. Where segments that are read together disagree
    (by rounding), the one whose name comes first counts.

    Args:
        identity: All that determines the values besides the token ids: digests of the weights and the adapter, dtypes,
            attention, reduction. Another identity is another folder.
        root: Where the folders are; by default `reference` in `align.files.cache_dir()`.

    Raises:
        ValueError: If the identity has an entry `format`, which is the store's own, or one that is not finite.
    """

    def __init__(self, identity: Mapping[str, str | int | float | None], root: Path | None = None) -> None:
        if "format" in identity:
            raise ValueError("identity: the entry `format` is the store's own")
        entries = {**identity, "format": FORMAT}
        self._label = json.dumps(entries, sort_keys=True, indent=2, allow_nan=False).encode() + b"\n"
        self._root = cache_dir() / "reference" if root is None else Path(root)
        self._keys = np.empty(0, dtype=KEY)  # sorted
        self._values = np.empty(0, dtype=np.float64)
        self._seen: set[str] = set()
        self._loaded = False
        self._warned = False

    @property
    def path(self) -> Path:
        """The folder of this identity, which the first `add` creates."""
        return self._root / hashlib.sha256(self._label).hexdigest()[:32]

    @property
    def nbytes(self) -> int:
        """Bytes of all segments on disk."""
        return sum(self._segments().values())

    def __len__(self) -> int:
        if not self._loaded:
            self.load()
        return len(self._keys)

    def load(self) -> None:
        """Read the segments not read yet. `get` and `add` do so the first time; call it to see what others add later."""
        if not self._loaded:
            self._tidy()
        self._loaded = True
        before = None
        while (now := list(self._segments())) != before:  # one listing may miss what is merged while it is made
            before, names = now, [name for name in now if name not in self._seen]
            self._seen.update(names)
            if found := [rows for name in names if (rows := self._read(name)) is not None]:
                self._insert(*_concatenate(found))

    def get(self, keys: Sequence[bytes]) -> Float64[np.ndarray, " n"]:
        """The values of these keys, in order; NaN where there is none."""
        if not self._loaded:
            self.load()
        at, found = self._find(_key_array(keys))
        values = np.full(len(keys), np.nan)
        values[found] = self._values[at[found]]
        return values

    def add(self, keys: Sequence[bytes], values: Sequence[float] | np.ndarray) -> None:
        """Keep these values and write those that are new as one segment.

        If the disk does not take them, this object still has them: it warns once and goes on.

        Raises:
            ValueError: If a value is NaN or infinite, or the numbers of keys and values differ. Nothing is kept then.
        """
        wanted, numbers = _key_array(keys), np.asarray(values, dtype=np.float64)
        if numbers.shape != wanted.shape:
            raise ValueError(f"{len(wanted)} keys, but values of shape {numbers.shape}")
        if bad := int((~np.isfinite(numbers)).sum()):
            raise ValueError(
                f"{bad} of {len(numbers)} reference log-probabilities are NaN or infinite; none was stored"
            )
        if not self._loaded:
            self.load()
        new = self._insert(wanted, numbers)
        if not len(new[0]):
            return
        if not os.path.exists(self.path / "identity.json"):
            self._write("identity.json", self._label)
        if (name := self._write_segment(new)) is not None:
            self._seen.add(name)
            self._merge_small()

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each key belongs among the sorted ones, and whether it is there."""
        at = np.searchsorted(self._keys, keys)
        found = np.zeros(len(keys), dtype=bool)
        inside = at < len(self._keys)
        found[inside] = self._keys[at[inside]] == keys[inside]
        return at, found

    def _insert(self, keys: np.ndarray, values: np.ndarray) -> Rows:
        """Take in rows, of equal keys the first, and return those that are new."""
        keys, first = np.unique(keys, return_index=True)
        at, found = self._find(keys)
        new = keys[~found], values[first][~found]
        self._keys = np.insert(self._keys, at[~found], new[0])
        self._values = np.insert(self._values, at[~found], new[1])
        return new

    def _segments(self) -> dict[str, int]:
        """Name and size of each segment, in order of names."""
        sizes = {}
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # merged meanwhile
                        if entry.name.endswith(SUFFIX):
                            sizes[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._warn_once(error)
        return dict(sorted(sizes.items()))

    def _name(self, data: bytes) -> str:
        """The name of a segment: a hash over the identity too, so that a segment fits into no other folder."""
        return hashlib.sha256(self._label + data).hexdigest() + SUFFIX

    def _read(self, name: str) -> Rows | None:
        """The rows of a segment, or None if it is gone or damaged."""
        file = self.path / name
        try:
            data = file.read_bytes()
        except FileNotFoundError:  # merged meanwhile: the next listing has what replaces it
            return None
        except OSError as error:
            logger.warning("%s cannot be read (%s): not used, its log-probabilities are computed again", file, error)
            return None
        try:
            if self._name(data) != name:
                raise ValueError("its content is not what it was named after")
            return _unpack(data)
        except (SafetensorError, LookupError, TypeError, ValueError) as error:
            logger.warning(
                "%s is damaged (%s): set aside as *.damaged, its log-probabilities are computed again", file, error
            )
            with suppress(OSError):
                os.replace(file, file.with_name(name + ".damaged"))
            return None

    def _write_segment(self, rows: Rows) -> str | None:
        keys, values = rows
        tensors = {"keys": keys.view(np.uint8).reshape(-1, KEY_BYTES), "values": values}
        data = save(tensors, metadata={"segment": uuid4().hex})
        name = self._name(data)
        return name if self._write(name, data) else None

    def _write(self, name: str, data: bytes) -> bool:
        """Write a file whole or not at all; say whether it is there."""
        scratch = self.path / f".writing-{uuid4().hex}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, self.path / name)
        except OSError as error:
            with suppress(OSError):
                scratch.unlink()
            self._warn_once(error)
            return False
        return True

    def _merge_small(self) -> None:
        """Replace small segments by one, if there are many."""
        small = [name for name, size in self._segments().items() if size < MERGE_BELOW]
        if len(small) <= MOST_SEGMENTS:
            return
        read = {name: rows for name in small if (rows := self._read(name)) is not None}
        if len(read) < 2:
            return
        keys, values = _concatenate(list(read.values()))
        keys, first = np.unique(keys, return_index=True)
        if self._write_segment((keys, values[first])) is not None:
            for name in read:
                with suppress(OSError):
                    (self.path / name).unlink()

    def _tidy(self) -> None:
        """Remove what killed writers left, and put the description right if somebody changed it."""
        for file in self.path.glob(".writing-*"):
            with suppress(OSError):
                if file.stat().st_mtime < time.time() - DAY:
                    file.unlink()
        label = self.path / "identity.json"
        with suppress(OSError):
            if label.read_bytes() != self._label:
                logger.warning("%s does not say what this folder is for: written anew; no value depends on it", label)
                self._write(label.name, self._label)

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            logger.warning(
                "%s: reference log-probabilities cannot be kept there (%s); going on with those in memory, "
                "which the next run computes again",
                self.path,
                error,
            )
        self._warned = True


def _key_array(keys: Sequence[bytes]) -> np.ndarray:
    if any(len(key) != KEY_BYTES for key in keys):
        raise ValueError(f"a key has {KEY_BYTES} bytes; use `sequence_key`")
    return np.frombuffer(b"".join(keys), dtype=KEY)


def _concatenate(parts: Sequence[Rows]) -> Rows:
    return np.concatenate([keys for keys, _ in parts]), np.concatenate([values for _, values in parts])


def _unpack(data: bytes) -> Rows:
    """The rows of a segment's bytes; an error if they are not laid out as they should be."""
    tensors = load(data)
    keys, values = tensors["keys"], tensors["values"]
    laid_out = values.ndim == 1 and keys.shape == (len(values), KEY_BYTES)
    if not laid_out or keys.dtype != np.uint8 or values.dtype != np.float64:
        raise ValueError(f"keys are {keys.dtype} {keys.shape}, values {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a value is NaN or infinite")
    return np.ascontiguousarray(keys).view(KEY).ravel(), values
