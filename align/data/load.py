"""Data sets from a hub id, a file or a folder, as named sets of normalised preference pairs."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError

from .normalise import REF_COLUMNS, DataError, normalise
from .split import hold_out

logger = logging.getLogger(__name__)

BUILDERS = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
COMPRESSION = ("gz", "zst", "xz", "bz2")


@dataclass
class DataSource:
    """Where rows come from. `split` takes the hub's slices, such as `train[:1000]`."""

    path: str
    """Hub id, local folder, or local .json, .jsonl, .parquet or .csv file, compressed or not."""
    split: str = "train"
    name: str | None = None
    """Configuration of a hub data set that has several."""
    revision: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """Our name to theirs, for data sets that call `prompt`, `chosen` or `rejected` something else."""


@dataclass
class DataConfig:
    """The recipe's `data` section."""

    train: DataSource
    eval: dict[str, DataSource] = field(default_factory=dict)
    """Named evaluation sets; metrics are logged as `eval_NAME_...`."""
    holdout: float = 0.0
    """Share of the training prompts kept apart as the evaluation set `holdout`, by a hash of the prompt."""
    unusable: Literal["error", "drop"] = "error"
    """What to do with rows that cannot be used: stop and name them, or drop them and say how many."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.holdout < 1.0:
            raise ValueError(f"holdout: must be in [0, 1), got {self.holdout}")
        if self.holdout and "holdout" in self.eval:
            raise ValueError("eval.holdout: the name is taken by data.holdout; rename the set")


class Preferences(NamedTuple):
    """Training pairs and named evaluation sets, each with the columns `prompt`, `chosen`, `rejected`."""

    train: Dataset
    eval: dict[str, Dataset]


def load_preferences(config: DataConfig, *, cached_reference: bool = False) -> Preferences:
    """Load, normalise and split everything a recipe's `data` section names.

    Args:
        config: The section.
        cached_reference: Keep the columns `ref_chosen_logps` and `ref_rejected_logps`, which must then be there.

    Raises:
        DataError: If a source is missing or rows cannot be used, naming rows and reasons.
    """
    keep = REF_COLUMNS if cached_reference else ()
    train = _load(config.train, "data.train", config.unusable, keep)
    named = {name: _load(source, f"data.eval.{name}", config.unusable, keep) for name, source in config.eval.items()}
    if config.holdout:
        train, named["holdout"] = hold_out(train, config.holdout)
    return Preferences(train, named)


def _load(source: DataSource, where: str, unusable: str, keep: tuple[str, ...]) -> Dataset:
    try:
        raw = read(source)
    except Exception as error:
        # `datasets` hides what the parser said behind "An error occurred", and says nothing about a file without rows
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        told = "there are no rows in it" if isinstance(error, StopIteration) else reason
        raise DataError(f"{where}: cannot read {source.path!r} (split {source.split!r}): {told}") from error
    dataset, dropped = normalise(
        raw, columns=source.columns, where=f"{where} ({source.path})", unusable=unusable, keep=keep
    )
    if dropped:
        logger.warning("%s: dropped %d of %d rows: %s", where, len(dropped), len(raw), "; ".join(dropped[:3]))
    return dataset


def read(source: DataSource) -> Dataset:
    """The rows of a source as they are.

    Raises:
        FileNotFoundError: If a path that looks local does not exist.
    """
    path = Path(source.path)
    if path.is_file():
        if source.name or source.revision:
            raise ValueError("name and revision belong to hub data sets; remove them for a file")
        kinds = [suffix.lstrip(".") for suffix in path.suffixes if suffix.lstrip(".") not in COMPRESSION]
        if not kinds or kinds[-1] not in BUILDERS:
            raise ValueError(
                f"unknown kind of file; expected one of .{', .'.join(BUILDERS)}, or .jsonl.gz and the like"
            )
        return load_dataset(BUILDERS[kinds[-1]], data_files={"train": str(path)}, split=source.split)
    if not path.exists() and (
        path.is_absolute()
        or path.suffix.lstrip(".") in {*BUILDERS, *COMPRESSION}
        or path.parts[:1] in ((".",), ("..",))
    ):
        raise FileNotFoundError(f"no such file or folder: {path.absolute()}")
    return load_dataset(source.path, source.name, split=source.split, revision=source.revision)
