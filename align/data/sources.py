"""Says in a recipe where rows come from, how they are read, and how much of each source is taken."""

import math
import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from align.data.rows.layouts import LAYOUTS, Prefer
from align.findings import printable

SET_NAME = re.compile(r"[^./\\\s][^/\\\x00-\x1f\x7f]{0,63}")


@dataclass
class DataSource:
    """Where rows come from. `split` takes the hub's slices, such as `train[:1000]`."""

    INSTEAD: ClassVar[dict[str, str]] = {"streaming": "it is of the whole section: `data.streaming: true`"}
    path: str
    """Hub id, local folder, or local .json, .jsonl, .parquet or .csv file, compressed or not."""
    split: str = "train"
    name: str | None = None
    """Configuration of a hub data set that has several."""
    revision: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """Our name to theirs, for data sets that call `prompt`, `chosen` or whatever else is read something else."""
    layout: str | None = None
    """Name of a layout whose rows can be read in several ways (`align.data.rows.layouts.LAYOUTS`)."""
    prefer: Prefer | None = None
    """For pairs with a label: its column, the columns of the two answers, and the label's values that choose each."""
    ignore: list[str] = field(default_factory=list)
    """Columns to do without that would otherwise be read, or refused because they change what the others mean."""
    fraction: int | float | None = None
    """Share of its rows that is used, drawn by a fixed seed."""
    max_rows: int | None = None
    """At most so many of its rows, drawn likewise."""
    weight: int | float | None = None
    """Of several training sources: its part of the rows, relative to those of the others. No row is repeated: the source that
    is shortest for its weight is used whole."""

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ValueError(f"layout: unknown, got {self.layout!r}; known: {', '.join(LAYOUTS)}")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: must be in (0, 1], got {self.fraction}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"max_rows: must be at least 1, got {self.max_rows}")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"weight: must be positive and finite, got {self.weight}")


@dataclass
class DataConfig:
    """The recipe's `data` section."""

    train: DataSource | list[DataSource]
    """One source, or several, which are mixed."""
    eval: dict[str, DataSource] = field(default_factory=dict)
    """Named evaluation sets; metrics are logged as `eval_NAME_...`."""
    holdout: int | float = 0
    """Prompts kept apart as the evaluation set `holdout`, by a hash of the prompt: about this share of them if it is below
    1, else exactly so many."""
    unusable: Literal["error", "drop"] = "error"
    """What to do with rows that cannot be used: stop and name them, or drop them and say how many."""
    streaming: bool = False
    """Read rows into files below `$ALIGNKIT_CACHE/rows`, a part at a time, and train from these, as later runs on the same
    data do: memory does not grow with the rows. Rows, their order and what is refused are those of `false`."""
    as_messages: bool = False
    """Read rows of plain text as chat messages, so that they go through the chat template: the prompt is the user's
    message (of a transcript of "Human:" and "Assistant:" each turn is one), the answers are the assistant's."""

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1 and (not isinstance(self.holdout, int) or self.holdout < 0):
            raise ValueError(f"holdout: must be in [0, 1), got {self.holdout}; a whole number is one of prompts")
        for name in self.eval:
            if not SET_NAME.fullmatch(name):
                raise ValueError(
                    f"eval.{printable(name)}: names of sets become parts of file names and of metrics; use up to 64 characters "
                    "without slashes and control characters, the first no dot and no space"
                )
        if self.holdout and "holdout" in self.eval:
            raise ValueError("eval.holdout: the name is taken by data.holdout; rename the set")
        own = self.train_sources()
        if not own:
            raise ValueError("train: an empty list; name a source")
        weighed = [source.weight is not None for source in own]
        if any(weighed) and (len(own) == 1 or not all(weighed)):
            raise ValueError(
                "train: a weight is relative to those of the other sources; give it to all of several, or to none"
            )
        if any(source.weight is not None for source in self.eval.values()):
            raise ValueError("eval: sets are not mixed, so a weight says nothing; use fraction or max_rows")

    def train_sources(self) -> list[DataSource]:
        """The sources of training rows."""
        return self.train if isinstance(self.train, list) else [self.train]
