"""Writes, for `alignkit data fix`, a mended copy of preference pairs and a log of every change.

Mended is only what can be mended without knowing what the text says. Rows that training would still refuse are left out,
each with its reason. Rows that need nothing are written as they came.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from datasets import Dataset

from align.data.audit.duplicates import collect, contradictory, first_like, row_digest
from align.data.audit.pair_rules import CONTROL
from align.data.files.bad_lines import without_repeated_keys
from align.data.files.checking import check_file, unpacked
from align.data.loading import DataSource, read
from align.data.rows.columns import SYSTEM, TEMPLATE
from align.data.rows.mapping import layout
from align.data.rows.messages import RowError, with_system
from align.data.rows.normal_form import HIDDEN
from align.data.rows.pairs import LONG_PROMPT, read_row, repeats
from align.errors import DataError, RunError
from align.files import check_writable, move_new, scratch_folder
from align.findings import printable

LINES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.bz2", ".jsonl.zst")
NEWLINE = re.compile(r"\r\n?")
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")  # colours and titles of terminals
SURROGATE = re.compile("[\ud800-\udfff]")
ROLE_NAMES = {"human": "user", **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "ai"), "assistant")}
EXCERPT = 60


class Change(NamedTuple):
    """One thing that was done to one row."""

    row: int
    """Counted from 1 in the source."""
    rule: str
    done: str
    """`changed` or `dropped`."""
    column: str | None
    before: str
    """For a change, the text around its first difference; for a dropped row, the reason."""
    after: str | None

    def record(self) -> dict[str, Any]:
        """As a line of the log."""
        head = {"row": self.row, "rule": self.rule, "done": self.done}
        if self.done == "dropped":
            return head | {"why": self.before}
        return head | {"column": self.column, "from": self.before, "to": self.after}


class Lines:
    """Rows of a JSON Lines file, with the lines they came from; what is no row is a ValueError in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.column_names = list(dict.fromkeys(key for row in self if isinstance(row, dict) for key in row))

    def __iter__(self) -> Iterator[dict[str, Any] | ValueError]:
        for line in self.texts():
            try:
                row = json.loads(line, object_pairs_hook=without_repeated_keys)
            except (ValueError, RecursionError) as error:
                yield ValueError(f"not a row of JSON: {error}")
                continue
            yield row if isinstance(row, dict) else ValueError("not a row of JSON: not an object")

    def texts(self) -> Iterator[str]:
        """The lines that are not blank."""
        with self.path.open("rb") as raw, unpacked(raw, self.path) as file:
            for number, line in enumerate(file):
                text = line.decode("utf-8-sig" if number == 0 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield text


def fix(
    rows: Dataset | Lines, *, columns: Mapping[str, str] | None = None, where: str = "data"
) -> Iterator[tuple[dict[str, Any] | None, list[Change]]]:
    """Mend rows; they are gone through twice, and one at a time.

    Args:
        rows: Pairs in a layout that `normalise` reads.
        columns: Our name to theirs, where they differ.
        where: What to call the source.

    Yields:
        For each row of the source what it becomes, in the layout it has, or None if it is dropped; and what was done.

    Raises:
        DataError: If the columns fit no layout, no row can be used, or text and chat messages are mixed.
    """
    mapping = layout(rows.column_names, columns or {}, where)
    dropped = _dropped(rows, mapping, where)
    for number, row in enumerate(rows, start=1):
        if number in dropped:
            rule, reason = dropped[number]
            yield None, [Change(number, rule, "dropped", None, reason, None)]
        elif isinstance(row, dict):  # always so, if it is not dropped
            yield _mend(row, mapping, number)


def _dropped(rows: Dataset | Lines, mapping: Mapping[str, str], where: str) -> dict[int, tuple[str, str]]:
    """Rule and reason of each row that stays out."""
    out: dict[int, tuple[str, str]] = {}
    beside = [name for name in rows.column_names if name not in mapping.values()]
    system = next((name for name in SYSTEM if name in beside), None)
    numbers: list[int] = []
    kinds: Counter[type] = Counter()

    def usable() -> Iterator[tuple[int, int, int]]:
        for number, row in enumerate(rows, start=1):
            try:
                if not isinstance(row, dict):
                    raise RowError("not-json", str(row))
                mended = _mend(row, mapping, number)[0]
                pair = read_row({theirs: mended.get(theirs) for theirs in mapping.values()}, mapping)
                prompt = pair["prompt"] if system is None else with_system(pair, mended.get(system))["prompt"]
            except RowError as error:
                out[number] = error.rule, printable(str(error), 300)
                continue
            numbers.append(number)
            kinds[type(pair["prompt"])] += 1
            template = {name: mended[name] for name in TEMPLATE if name in beside and mended.get(name) is not None}
            if template:  # the same messages with other tools are another prompt
                prompt = [{"role": "template", "content": json.dumps([prompt, template], sort_keys=True)}]
            yield row_digest(prompt, pair["chosen"], pair["rejected"])

    pairs = collect(usable())
    if len(kinds) > 1:
        raise DataError(
            f"{where}: {kinds[str]} rows are plain text and {kinds[list]} are chat messages; split them into two files"
        )
    against = contradictory(pairs)
    for index in np.flatnonzero(against):
        out[numbers[index]] = "contradictory-pairs", "another row has its answers, chosen and rejected swapped"
    like = first_like(pairs)
    for index in np.flatnonzero((like != np.arange(len(like))) & ~against):
        out[numbers[index]] = "duplicate-pairs", f"the same pair as row {numbers[like[index]]}"
    if len(out) == sum(1 for _ in rows):
        first = f", first: row {min(out)}: {out[min(out)][1]}" if out else ""
        raise DataError(f"{where}: of {len(out)} rows none is left{first}")
    return out


def _mend(row: dict[str, Any], mapping: Mapping[str, str], number: int) -> tuple[dict[str, Any], list[Change]]:
    """A row with what can be mended in it; the same object if there is nothing."""
    changes: list[Change] = []
    mended = dict(row)

    def change(rule: str, column: str, before: Any, after: Any) -> Any:
        if before != after:
            changes.append(Change(number, rule, "changed", column, *_excerpts(before, after)))
        return after

    def clean(text: str, column: str) -> str:
        text = change("newlines", column, text, NEWLINE.sub("\n", text))
        text = change("surrogates", column, text, SURROGATE.sub("\ufffd", text))
        text = change("invisible-characters", column, text, HIDDEN.sub("", text))
        return change("control-characters", column, text, CONTROL.sub(_windows, ESCAPE.sub("", text)))

    def message(value: Any, column: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        if value.get("role") is None and value.get("from") is not None:
            rest = {k: v for k, v in value.items() if k not in ("from", "value", "role", "content")}
            value = change("sharegpt", column, value, {"role": value["from"], "content": value.get("value"), **rest})
        result = dict(value)
        if isinstance(value.get("role"), str):
            name = value["role"].strip().lower()
            result["role"] = change("wrong-roles", f"{column}.role", value["role"], ROLE_NAMES.get(name, name))
        if isinstance(value.get("content"), str):
            result["content"] = clean(value["content"], f"{column}.content")
        return result

    for name, value in row.items():
        if name not in mapping.values() and name not in SYSTEM:
            mended[name] = (
                change("surrogates", name, value, SURROGATE.sub("\ufffd", value)) if isinstance(value, str) else value
            )
        elif isinstance(value, str):
            mended[name] = clean(value, name)
        elif isinstance(value, Mapping) and (value.get("role") or value.get("from")):
            mended[name] = [message(change("wrong-type", name, value, [value])[0], f"{name}[0]")]
        elif isinstance(value, list):
            mended[name] = [message(item, f"{name}[{i}]") for i, item in enumerate(value)]
    prompt, sides = mended.get(mapping.get("prompt", "")), [mapping["chosen"], mapping["rejected"]]
    if isinstance(prompt, str) and len(prompt.strip()) >= LONG_PROMPT:
        while all(isinstance(mended.get(side), str) and repeats(prompt, mended[side]) for side in sides):
            for side in sides:
                mended[side] = change("prompt-in-answer", side, mended[side], _without(prompt, mended[side]))
    return (mended, changes) if changes else (row, [])


def _without(prompt: str, answer: str) -> str:
    return answer[len(prompt) :] if answer.startswith(prompt) else answer.lstrip()[len(prompt.strip()) :]


def _windows(match: re.Match[str]) -> str:
    """What Windows-1252 has where Latin-1 has control characters: quotes and dashes; nothing for all others."""
    code = ord(match[0])
    return bytes([code]).decode("cp1252", errors="ignore") if 0x80 <= code < 0xA0 else ""


def _excerpts(before: Any, after: Any) -> tuple[str, str]:
    one, other = (value if isinstance(value, str) else json.dumps(value, default=str) for value in (before, after))
    shorter = min(len(one), len(other))
    start = max(0, next((i for i in range(shorter) if one[i] != other[i]), shorter) - EXCERPT // 3)
    return printable(one[start : start + EXCERPT]), printable(other[start : start + EXCERPT])


def main(argv: Sequence[str]) -> int:
    """Write a mended copy of a data set, and a log of every change beside it; the source stays as it is."""
    parser = argparse.ArgumentParser(prog="alignkit data fix", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("source", help="a file, a folder, or a hub id")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="must not exist")
    parser.add_argument("--split", default="train")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help="prompt=question, say")
    options = parser.parse_args(argv)
    columns = dict(word.partition("=")[::2] for word in options.column)
    out, log = options.out, options.out.with_suffix(".log.jsonl")
    _refuse(Path(options.source), out, log)
    where = printable(options.source, 200)
    try:
        rows = _rows(options.source, options.split)
    except Exception as error:
        raise DataError(f"{where}: cannot be read: {error}") from error
    done = _write(fix(rows, columns=columns, where=where), rows, out, log)
    told = [f"{n} {what} ({rule})" for (what, rule), n in sorted(done.items()) if what != "kept"]
    print(f"{out}: {done['kept', '']} rows; {', '.join(told) or 'nothing to mend'}; log: {log}")  # noqa: T201 - the command's result
    return 0


def _refuse(source: Path, out: Path, log: Path) -> None:
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: the copy is written as .jsonl; give it such a name")
    for path in (out, log):
        if path.exists() or path.is_symlink():
            raise DataError(f"{path}: is there already; name another file, or remove it")
    if source.is_dir() and source.resolve() in out.resolve().parents:
        raise DataError(f"{out}: lies in the source {source}, which would then hold its rows twice; name another place")
    check_writable(out)


def _rows(source: str, split: str) -> Dataset | Lines:
    path = Path(source)
    if path.is_file() and path.name.endswith(LINES) and split == "train":
        check_file(path)
        return Lines(path)
    return read(DataSource(source, split=split))


def _write(
    mended: Iterable[tuple[dict[str, Any] | None, list[Change]]], rows: Dataset | Lines, out: Path, log: Path
) -> Counter[tuple[str, str]]:
    """Both files, under their names only when they are complete; returns how often what was done."""
    done: Counter[tuple[str, str]] = Counter()
    with scratch_folder(out) as folder:
        parts = folder / out.name, folder / log.name
        with (
            parts[0].open("w", encoding="utf-8", newline="\n") as copy,
            parts[1].open("w", encoding="utf-8", newline="\n") as told,
        ):
            lines = rows.texts() if isinstance(rows, Lines) else iter(())
            for row, changes in mended:
                line = next(lines, None)
                for change in changes:
                    _put(told, change.record())
                    done[change.done, change.rule] += 1
                if row is None:
                    continue
                done["kept", ""] += 1
                copy.write(line + "\n") if line is not None and not changes else _put(copy, row)
        move_new(parts[1], log)
        try:
            move_new(parts[0], out)
        except RunError:
            log.unlink()
            raise
    return done


def _put(file: IO[str], value: Mapping[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise DataError(f"a column holds {type(value).__name__}, which JSON cannot; remove the column first")
