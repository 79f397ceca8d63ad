"""Finds the line of a JSON file that cannot be read: the parser of `datasets` counts rows anew in every 10 MB."""

import json
import re
from pathlib import Path
from typing import Any

from align.findings import printable

from .checking import MAX_LINE, unpacked

KINDS = {
    str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"
}  # fmt: skip


class _Twice(ValueError):
    """A key that one object has twice."""


def bad_line(path: Path) -> str | None:
    """The first line of a JSON Lines file that is no row, or None if each is one; a single document is told as a whole.

    Args:
        path: A file that `check_file` has passed, so that no line is longer than 64 MiB.

    Returns:
        `line 7: ...`, lines counted from 1.
    """
    with path.open("rb") as raw, unpacked(raw, path) as file:
        for number, content in enumerate(file, start=1):
            try:
                row = _read(content.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8"))
            except json.JSONDecodeError as error:
                return _document(path) if number == 1 else f"line {number}: {_told(error)}"
            except (ValueError, RecursionError) as error:
                return f"line {number}: {_told(error)}"
            if number == 1 and isinstance(row, list):
                return _document(path)
            if row is not None and not isinstance(row, dict):
                return f"line {number}: expected an object, got {KINDS[type(row)]}"
    return None


def _document(path: Path) -> str | None:
    with path.open("rb") as raw, unpacked(raw, path) as file:
        content = file.read(MAX_LINE + 1)
    if len(content) > MAX_LINE:
        return None
    try:
        _read(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        return f"line {error.lineno}: {_told(error)}"
    except (ValueError, RecursionError) as error:
        return _told(error)
    return None


def _read(text: str) -> Any:
    if not text.strip():
        return None
    value = json.loads(text, object_pairs_hook=without_repeated_keys)
    if re.search(r"\\u[dD][89a-fA-F]", text) and "\ufffd" not in text:
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair
    return value


def without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON as a dictionary, for `object_pairs_hook`; a key given twice is an error."""
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _Twice(f"the key {printable(twice)!r} is given twice")
    return result


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg}, at character {error.colno}"
    if isinstance(error, UnicodeEncodeError):
        return "not valid text: half of a surrogate pair (\\ud800 to \\udfff)"
    return str(error) if isinstance(error, _Twice) else f"not valid JSON: {error}"
