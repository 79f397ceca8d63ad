"""Loads data sets from a hub id, a file or a folder, as named sets of normalised rows."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

from align.data.audit.duplicates import refuse_damaged
from align.data.files.bad_lines import bad_line
from align.data.files.checking import COMPRESSION, check_file, check_folder
from align.data.rows.labels import speaks_of_pairs
from align.data.rows.layouts import Reading
from align.data.rows.normalise import REF_COLUMNS, ROW, Rows, normalise
from align.errors import DataError
from align.files import sha256
from align.findings import Finding, printable

from .kept import kept
from .mixing import drawn, mixed
from .pause import collector_paused
from .sources import DataConfig, DataSource
from .split import hold_out, prompt_position

logger = logging.getLogger(__name__)

BUILDERS = {"json": "json", "jsonl": "json", "parquet": "parquet", "csv": "csv"}
TRAIN, EVAL = "data.train", "data.eval."
SAID = (
    "shares", "in-two-sources", "both-sides", "earlier-answers", "left-out", "scores-against-labels", "unused-columns",
    "unusable-rows",
)  # fmt: skip
SHOWN = 500  # characters of a line of a message that holds texts of strangers


class Loaded(NamedTuple):
    """Training rows and named evaluation sets, each in the format of its kind of rows (`align.data.rows.normalise`)."""

    train: Dataset
    eval: dict[str, Dataset]
    shares: list[dict[str, Any]] = []  # noqa: RUF012 - of a NamedTuple, and never written to
    """Of several training sources each with its path, rows and share."""


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
    held_texts: tuple[str, ...] = (),
    whole_pairs: bool = False,
) -> Loaded:
    """Load, normalise and split everything a recipe's `data` section names, and hold the sets against each other.

    Args:
        config: The section.
        rows: What a row is.
        columns: Further columns of numbers that must be there and are kept.
        texts: Further columns of texts, likewise.
        held_texts: Those that evaluation sets alone must have, what is held out of the training set included.
        whole_pairs: Of other rows than pairs: leave sources of pairs as they are, to be ranked.

    Raises:
        DataError: If a source is missing, rows cannot be used, pairs contradict each other, or evaluated pairs are
            trained on, naming rows and reasons.
    """

    def load(scratch: Path | None) -> tuple[dict[str, Dataset], list[dict[str, Any]]]:
        sets, shares = {}, []
        for name in set_names(config):
            told: list[Finding] = []
            asked = texts if name == TRAIN and not config.holdout else (*texts, *held_texts)
            sets[name], of_sources = load_set(
                name, config, keep=(ROW, *columns), texts=asked, rows=rows, told=told, whole_pairs=whole_pairs, scratch=scratch
            )  # fmt: skip
            shares += of_sources
            say_as_read(told, None if len(of_sources) > 1 else name)
        if config.holdout:
            sets[TRAIN], sets[f"{EVAL}holdout"], held = hold_out(sets[TRAIN], config.holdout)
            logger.warning("%s: %s; %s", held.where, held.message, held.remedy)
        if rows == "pairs":
            sets = refuse_damaged(sets, unusable=config.unusable)
        else:
            _say_overlap(sets)
        return {name: data.remove_columns(ROW) for name, data in sets.items()}, shares

    with collector_paused():
        if config.streaming:
            contents = [[content_of(source) for source in sources_of(config, name)] for name in set_names(config)]
            sets, shares = kept([asdict(config), rows, columns, texts, *held_texts, whole_pairs, contents], load)
        else:
            sets, shares = load(None)
    return Loaded(sets.pop(TRAIN), {name.removeprefix(EVAL): data for name, data in sets.items()}, shares)


def content_of(source: DataSource) -> Any:
    """What tells the bytes of a source from others; None where reading says what is wrong."""
    path = Path(source.path)
    if path.is_file():
        return sha256(path)
    if path.is_dir():
        return [(str(file.relative_to(path)), sha256(file)) for file in sorted(path.rglob("*")) if file.is_file()]
    try:
        return read(source)._fingerprint
    except Exception:
        return None


def _say_overlap(sets: dict[str, Dataset]) -> None:
    """Warn of evaluated prompts that are trained on."""
    trained = {prompt_position(prompt) for prompt in sets[TRAIN]["prompt"]}
    for name, data in sets.items():
        shared = sum(prompt_position(prompt) in trained for prompt in data["prompt"]) if name != TRAIN else 0
        if shared:
            logger.warning("%s: %d of %d prompts are trained on too", name, shared, len(data))


def set_names(config: DataConfig) -> list[str]:
    """The sets of a `data` section by the names that messages give them, the training set first."""
    return [TRAIN, *(f"{EVAL}{name}" for name in config.eval)]


def sources_of(config: DataConfig, name: str) -> list[DataSource]:
    """The sources of a set by its name; what is held out is of those of training."""
    given = config.eval.get(name.removeprefix(EVAL)) if name != TRAIN else None
    return config.train_sources() if given is None else [given]


def say_as_read(told: Iterable[Finding], name: str | None) -> None:
    """Say of how a set was read what training says (`alignkit check` says all), under its name or each source's own."""
    for finding in told:
        if finding.rule in SAID:
            logger.warning("%s: %s", name or finding.where, finding.message)


def load_set(
    name: str,
    config: DataConfig,
    *,
    keep: tuple[str, ...],
    texts: tuple[str, ...],
    rows: Rows,
    told: list[Finding],
    whole_pairs: bool = False,
    scratch: Path | None = None,
) -> tuple[Dataset, list[dict[str, Any]]]:
    """One set by its name, normalised, its sources mixed; and of several sources their shares.

    Arguments and errors are those of `load_source` and `align.data.mixing.mixed`.
    """
    own, parts = sources_of(config, name), []
    for k, source in enumerate(own):
        where = name if len(own) == 1 else f"{name}[{k}]"
        part = load_source(
            source, where, config, keep=keep, texts=texts, rows=rows, told=told, whole_pairs=whole_pairs, scratch=scratch
        )  # fmt: skip
        parts.append(drawn(part, fraction=source.fraction, max_rows=source.max_rows))
    if len(own) == 1:
        return parts[0], []
    if len({tuple(kind in part.column_names for kind in ("chosen", "label")) for part in parts}) > 1:
        raise DataError(
            f"{name}: some sources are pairs and others are labelled; evaluate the held-out rows of each as a set of its own"
        )
    return mixed(parts, [source.path for source in own], [source.weight for source in own], name, told)


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
    scratch: Path | None = None,
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
        scratch: As for `normalise`.

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
    raw = raw.add_column(ROW, np.arange(1, len(raw) + 1))
    reading = Reading(source.columns, source.layout, source.prefer, source.ignore, config.as_messages)
    if whole_pairs and speaks_of_pairs(raw.column_names, reading):
        rows = "pairs"
    try:
        dataset, dropped = normalise(
            raw, where=f"{where} ({source.path})", unusable=config.unusable, keep=keep, texts=texts, rows=rows,
            reading=reading, told=told, scratch=scratch,
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
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
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
        words = {"keep_default_na": False, "na_values": [""]} if kind == "csv" else {}  # NA and None may be answers
        return load_dataset(BUILDERS[kind], data_files={"train": str(path)}, split=source.split, **words)
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
