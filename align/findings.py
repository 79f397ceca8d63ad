"""Holds what an inspection says: one finding a rule, with the rows it concerns and what to do."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Level = Literal["error", "warning", "note"]
SHOWN = 10


class Finding(NamedTuple):
    """One rule that some rows, or the environment, do not meet."""

    level: Level
    """`error`: must not be trained on as it is. `warning`: trains, but probably not on what was meant. `note`: a figure."""
    rule: str
    """Short name in the words of the field, such as `identical-answers`."""
    where: str
    """What is concerned: `data.train (pairs.jsonl)`, `data.train against data.eval.holdout`, `environment`."""
    message: str
    """What was found, with figures; no line break, no control character."""
    remedy: str
    """What to do about it."""
    rows: tuple[int, ...] = ()
    """Rows concerned, numbered from 1 in the source as it was read; all of them."""

    def line(self) -> str:
        """The finding as one line of text, with the first ten rows."""
        return f"{self.level}: {self.where}: {self.rule}: {self.message}{shown(self.rows)}; {self.remedy}"


def shown(rows: Sequence[int]) -> str:
    """` (rows 3, 7, ... and 12 more)`, or nothing."""
    if not rows:
        return ""
    more = f", ... and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f" (row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:SHOWN]))}{more})"


def printable(text: str, limit: int = 80) -> str:
    """Text of strangers as it may appear in a terminal: control characters escaped, cut to `limit` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


SHOWN_LINE = 1000
