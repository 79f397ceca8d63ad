"""Loads data sets from a hub id, a file or a folder, as named sets of normalised rows."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

from align.data.audit.duplicates import refuse_damaged
from align.data.files.bad_lines import bad_line
from align.data.files.checking import COMPRESSION, check_file, check_folder
from align.data.rows.labels import speaks_of_pairs
from align.data.rows.layouts import LAYOUTS, Prefer, Reading
from align.data.rows.normalise import REF_COLUMNS, ROW, Rows, normalise
from align.errors import DataError
from align.findings import Finding, printable

from .split import hold_out, prompt_position

logger = logging.getLogger(__name__)

BUILDERS = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
TRAIN, EVAL = "data.train", "data.eval."
SAID = ("both-sides", "earlier-answers", "left-out", "scores-against-labels", "unused-columns", "unusable-rows")
"""What training says of how a source is read; `alignkit check` says all."""
SHOWN = 500  # characters of a line of a message that holds texts of strangers


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
    """Our name to theirs, for data sets that call `prompt`, `chosen` or whatever else is read something else."""
    layout: str | None = None
    """Name of a layout whose rows can be read in several ways (`align.data.rows.layouts.LAYOUTS`)."""
    prefer: Prefer | None = None
    """For pairs with a label: its column, the columns of the two answers, and the label's values that choose each."""
    ignore: list[str] = field(default_factory=list)
    """Columns to do without that would otherwise be read, or refused because they change what the others mean."""

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ValueError(f"layout: unknown, got {self.layout!r}; known: {', '.join(LAYOUTS)}")


@dataclass
class DataConfig:
    """The recipe's `data` section."""

    train: DataSource
    eval: dict[str, DataSource] = field(default_factory=dict)
    """Named evaluation sets; metrics are logged as `eval_NAME_...`."""
    holdout: int | float = 0
    """Prompts kept apart as the evaluation set `holdout`, by a hash of the prompt: about this share of them if it is below
    1, else exactly so many."""
    unusable: Literal["error", "drop"] = "error"
    """What to do with rows that cannot be used: stop and name them, or drop them and say how many."""
    as_messages: bool = False
    """Read rows of plain text as chat messages, so that they go through the chat template: the prompt is the user's
    message (of a transcript of "Human:" and "Assistant:" each turn is one), the answers are the assistant's."""

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1 and (not isinstance(self.holdout, int) or self.holdout < 0):
            raise ValueError(f"holdout: must be in [0, 1), got {self.holdout}; a whole number is one of prompts")
        if self.holdout and "holdout" in self.eval:
            raise ValueError("eval.holdout: the name is taken by data.holdout; rename the set")


class Loaded(NamedTuple):
    """Training rows and named evaluation sets, each in the format of its kind of rows (`align.data.rows.normalise`)."""

    train: Dataset
    eval: dict[str, Dataset]


def named_sets(train: Dataset, evals: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """All sets by the names that messages give them: `data.train` first, then `data.eval.NAME`."""
    return {TRAIN: train} | {f"{EVAL}{name}": dataset for name, dataset in evals.items()}


def load_preferences(config: DataConfig, *, cached_reference: bool = False) -> Loaded:
    """`load_data` of preference pairs, with the columns `ref_chosen_logps` and `ref_rejected_logps` if asked for."""
    return load_data(config, columns=REF_COLUMNS if cached_reference else ())


def load_data(
    config: DataConfig,
    *,
    rows: Rows = "pairs",
    columns: tuple[str, ...] = (),
    texts: tuple[str, ...] = (),
    whole_pairs: bool = False,
) -> Loaded:
    """Load, normalise and split everything a recipe's `data` section names, and hold the sets against each other.

    Args:
        config: The section.
        rows: What a row is.
        columns: Further columns of numbers that must be there and are kept.
        texts: Further columns of texts, likewise.
        whole_pairs: Of `labels`: leave sources of pairs as they are, to be ranked.

    Raises:
        DataError: If a source is missing, rows cannot be used, pairs contradict each other, or evaluated pairs are
            trained on, naming rows and reasons.
    """
    keep = (ROW, *columns)
    sets = {}
    for name, source in sources(config).items():
        told: list[Finding] = []
        sets[name] = load_source(
            source, name, config, keep=keep, texts=texts, rows=rows, told=told, whole_pairs=whole_pairs
        )
        for finding in told:
            if finding.rule in SAID:
                logger.warning("%s: %s", name, finding.message)
    if config.holdout:
        sets[TRAIN], sets[f"{EVAL}holdout"], held = hold_out(sets[TRAIN], config.holdout)
        logger.warning("%s: %s; %s", held.where, held.message, held.remedy)
    if rows == "pairs":
        sets = refuse_damaged(sets, unusable=config.unusable)
    else:
        _say_overlap(sets)
    sets = {name: data.remove_columns(ROW) for name, data in sets.items()}
    return Loaded(sets.pop(TRAIN), {name.removeprefix(EVAL): data for name, data in sets.items()})


def _say_overlap(sets: dict[str, Dataset]) -> None:
    """Warn of evaluated prompts that are trained on."""
    trained = {prompt_position(prompt) for prompt in sets[TRAIN]["prompt"]}
    for name, data in sets.items():
        shared = sum(prompt_position(prompt) in trained for prompt in data["prompt"]) if name != TRAIN else 0
        if shared:
            logger.warning("%s: %d of %d prompts are trained on too", name, shared, len(data))


def sources(config: DataConfig) -> dict[str, DataSource]:
    """The sources of a `data` section by the names that messages give them, the training set first."""
    return {TRAIN: config.train} | {f"{EVAL}{name}": source for name, source in config.eval.items()}


def load_source(
    source: DataSource,
    where: str,
    config: DataConfig,
    *,
    keep: tuple[str, ...],
    texts: tuple[str, ...],
    rows: Rows,
    told: list[Finding],
    whole_pairs: bool = False,
) -> Dataset:
    """One source, normalised.

    Args:
        source: What to read.
        where: What to call it.
        config: Says what becomes of rows that cannot be used, and of plain text.
        keep: As `columns` of `load_data`; `alignkit_row` numbers the rows.
        texts: As for `load_data`.
        rows: What a row is.
        told: What is worth knowing of how it was read is added to it.
        whole_pairs: As for `load_data`.

    Raises:
        DataError: If it cannot be read or its rows cannot be used.
    """
    try:
        raw = read(source)
    except Exception as error:
        raise DataError(
            _clean(f"{where}: cannot read {source.path!r} (split {source.split!r}): {_why(error, source)}")
        ) from error
    raw = raw.remove_columns([name for name in raw.column_names if name == ROW])
    raw = raw.add_column(ROW, list(range(1, len(raw) + 1)))
    reading = Reading(source.columns, source.layout, source.prefer, source.ignore, config.as_messages)
    if whole_pairs and rows == "labels" and speaks_of_pairs(raw.column_names, reading):
        rows = "pairs"
    try:
        dataset, dropped = normalise(
            raw, where=f"{where} ({source.path})", unusable=config.unusable, keep=keep, texts=texts, rows=rows,
            reading=reading, told=told,
        )  # fmt: skip
    except DataError as error:
        raise DataError(_clean(str(error))) from None
    if dropped:
        gone = tuple(int(line.split()[1].rstrip(":")) for line in dropped)
        reasons = printable("; ".join(dropped[:2]), 200)
        message = f"{len(dropped)} of {len(raw)} rows cannot be used and are dropped: {reasons}"
        told.append(Finding("warning", "unusable-rows", where, message, "mend them", gone))
    return dataset


def _clean(message: str) -> str:
    """A message that quotes data of strangers, without what would steer a terminal."""
    return "\n".join(printable(line, SHOWN) for line in message.split("\n"))


def _why(error: Exception, source: DataSource) -> str:
    """What the parser said: `datasets` hides it behind "An error occurred", and says nothing about a file without rows."""
    if isinstance(error, StopIteration):
        return "there are no rows in it"
    path = Path(source.path)
    if not isinstance(error, DataError) and path.is_file() and _kind(path) in ("json", "jsonl"):
        told = bad_line(path)
        if told is not None:
            return told
    reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
    return str(reason)


def _kind(path: Path) -> str | None:
    kinds = [suffix.lstrip(".") for suffix in path.suffixes if suffix.lstrip(".") not in COMPRESSION]
    return kinds[-1] if kinds and kinds[-1] in BUILDERS else None


def read(source: DataSource) -> Dataset:
    """The rows of a source as they are; local files are looked through first (`align.data.files.checking`).

    Raises:
        FileNotFoundError: If a path that looks local does not exist.
        DataError: If a local file or folder is not what it says, or not fit to be read.
        ValueError: If the file is of an unknown kind, or the path is the name of a file format.
    """
    parsers = logging.getLogger("datasets.packaged_modules")  # log what they raise too, and data of strangers with it
    level = parsers.level
    try:
        parsers.setLevel(logging.CRITICAL)
        return _read(source)
    finally:
        parsers.setLevel(level)


def _read(source: DataSource) -> Dataset:
    path = Path(source.path)
    if path.is_file():
        if source.name or source.revision:
            raise ValueError("name and revision belong to hub data sets; remove them for a file")
        kind = _kind(path)
        if kind is None:
            raise ValueError(
                f"unknown kind of file; expected one of .{', .'.join(BUILDERS)}, or .jsonl.gz and the like"
            )
        check_file(path)
        return load_dataset(BUILDERS[kind], data_files={"train": str(path)}, split=source.split)
    if source.path in _PACKAGED_DATASETS_MODULES:  # `datasets` would take whatever lies in the working directory
        raise ValueError("the name of a file format, not of a data set; write ./ before the name of a folder")
    if path.is_dir():
        check_folder(path)
    if not path.exists() and (
        path.is_absolute()
        or path.suffix.lstrip(".") in {*BUILDERS, *COMPRESSION}
        or path.parts[:1] in ((".",), ("..",))
    ):
        raise FileNotFoundError(f"no such file or folder: {path.absolute()}")
    return load_dataset(source.path, source.name, split=source.split, revision=source.revision)
