"""Keeps what a judge has said in an append-only file, so that a killed run asks only for what is missing."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

from align.files import append_synced

logger = logging.getLogger(__name__)


class Ledger:
    """Verdicts by key in a jsonl file; a record that holds an `error` is history and answers nothing.

    Each record is written whole and at once, as it comes. A line that holds no verdict, such as the last one of a
    killed run, is left in place and counts as missing.

    Args:
        path: The file; made with its folder when the first record comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str]] = {}
        content = path.read_bytes() if path.is_file() else b""
        self._whole = not content or content.endswith(b"\n")
        unreadable = []
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                self._known |= _verdict(json.loads(line))
            except (ValueError, TypeError, KeyError, RecursionError):
                unreadable.append(number)
        if unreadable:
            logger.warning("%s: %d unreadable lines (first: %d) count as missing", path, len(unreadable), unreadable[0])

    def get(self, key: str) -> tuple[float, str] | None:
        """The last verdict of a key: probability that the answer shown first is better, and what was said."""
        return self._known.get(key)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record: `key` with `first_wins` and `said`, or with `error`. Safe from several threads.

        Raises:
            ValueError: If `first_wins` is no probability; nothing is written then.
        """
        verdict = _verdict(record)
        with self._lock:
            line = json.dumps(record) + "\n"
            try:
                append_synced(self.path, (line if self._whole else "\n" + line).encode())
            except OSError:
                self._whole = False  # of what could not be written, a part may be there
                raise
            self._whole = True
            self._known |= verdict


def _verdict(record: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """What a record says, by its key; nothing if it is of an error."""
    if "error" in record:
        return {}
    first_wins = float(record["first_wins"])
    if not 0 <= first_wins <= 1:
        raise ValueError(f"first_wins must be in [0, 1], got {first_wins}")
    return {str(record["key"]): (first_wins, str(record["said"]))}
