"""Finds JSON so deep that it ends the process that parses it, in a pass that parses nothing.

PyArrow's parser overflows its stack on 20,000 opening brackets, and reads address 0 where a block of rows begins with `null`.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from align.errors import DataError

MAX_DEPTH = 50
SHAPE = b'[]{}"\nn-0123456789'  # what is looked at; outside of strings, only null begins with an n
BUT_SHAPE = bytes(set(range(256)) - set(SHAPE + b"\r"))
LINES = bytes.maketrans(b"\r", b"\n")


def harmless(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Passes the pieces of a JSON or JSON Lines file on, as long as it is not deep and no row is null.

    Strings are left out first; they end with their line, closed or not.

    Raises:
        DataError: Naming the line, or one not far before it.
    """
    held, in_string, is_blank = b"", False, True
    line, level, lowest, in_list = 1, 0, 0, False
    for chunk in chunks:
        text = held + chunk
        held = b"\\" * ((len(text) - len(text.rstrip(b"\\"))) % 2)  # what it escapes is in the next piece
        text = text[: len(text) - len(held)].replace(b"\\\\", b"").replace(b'\\"', b"").replace(b"\r\n", b"\n")
        seen, in_string = _outside_of_strings(b'"' * in_string + text.translate(LINES, delete=BUT_SHAPE))
        lines = b"\n" * is_blank + seen
        null = lines.find(b"\nn")
        if null >= 0:
            raise DataError(f"line {line + lines.count(10, is_blank, null + 1)}: expected an object, got null")
        is_blank = lines.endswith(b"\n")
        shape = np.frombuffer(seen.translate(None, delete=b'"\n-0123456789'), np.uint8)
        if len(shape):
            is_opening, is_null = (shape == ord("[")) | (shape == ord("{")), shape == ord("n")
            levels = level + np.cumsum(np.where(is_opening, 1, np.where(is_null, 0, -1)))
            floors = np.minimum(lowest, np.minimum.accumulate(levels))
            if int((levels - floors).max()) > MAX_DEPTH:
                raise DataError(
                    f"line {line} or after: nested more than {MAX_DEPTH} levels deep, or its brackets are never closed"
                )
            outermost = np.flatnonzero(is_opening & (levels == 1))
            before = np.searchsorted(outermost, np.flatnonzero(is_null & (levels == 1))) - 1
            listed = np.concatenate([shape[outermost] == ord("["), [in_list]])  # -1 is the bracket of an earlier piece
            if listed[before].any():
                raise DataError(f"line {line} or after: expected an object in the list of rows, got null")
            level, lowest, in_list = int(levels[-1]), int(floors[-1]), bool(listed[len(outermost) - 1])
        line += chunk.count(b"\n")
        yield chunk


def _outside_of_strings(text: bytes) -> tuple[bytes, bool]:
    """What is not between quotes, the quotes included, and whether the end is within a string."""
    characters = np.frombuffer(text, np.uint8)
    quotes = characters == ord('"')
    count = np.cumsum(quotes)
    before_line = np.maximum.accumulate(np.where(characters == ord("\n"), count, 0)) if len(count) else count
    inside = (count - before_line) % 2 == 1
    return characters[~inside | quotes].tobytes(), bool(len(inside) and inside[-1])
