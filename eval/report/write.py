"""Writes a report as JSON and Markdown, and everything of it to a folder."""

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from align.files import digest_of, read_json, write_text
from align.runs.contents import REPORT_FILE, ROUNDS_FILE, ledger_in

from .html import to_html
from .results import Report
from .tables import (
    COMPARED,
    INTERVALS,
    JUDGING,
    comparison_table,
    front_note,
    judge_tables,
    plain,
    table,
)
from .tables_rounds import rounds_markdown
from .verdict import verdict

__all__ = ["comparison_table", "table", "to_html", "to_json", "to_markdown", "verdict", "write_items", "write_report"]


DRAWN = "drawn.json"
"""In a folder of pictures, which of them are a report's."""
SCHEMA_VERSION = 1
"""Of report.json. A key that is renamed or gone, or means something else, makes the next one."""
IN_JSON = {
    "comparisons": "comparisons",
    "judges": "judged",
    "best_of_k": "best_of_k",
    "left_out": "left_out",
    "calibration": "calibration",
    "rounds": "rounds",
    "checkpoints": "checkpoints",
    "best_round": "best_round",
    "details": "details",
}
"""What else report.json has where there is any: the key, and the field of `Report`."""
PAGE, NEWEST, ID_LETTERS = "report.html", "newest", 12
MADE_WITH = ("torch", "transformers", "trl", "peft", "numpy", "scipy")


def to_json(report: Report) -> str:
    """Machine-readable: estimates by name, each value, low, high and n, and whatever else was found."""
    found = {key: getattr(report, name) for key, name in IN_JSON.items()}
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {name: version(name) for name in MADE_WITH if find_spec(name) is not None},
            "name": report.name,
            "verdict": verdict(report),
            "estimates": as_json(report.estimates),
            **{name: as_json(value) for name, value in found.items() if value},
            "settings": report.settings,
        },
        indent=2,
    )


def as_json(value: Any) -> Any:
    """Named tuples and dataclasses by name; what JSON cannot hold becomes text, as in `metrics.jsonl`: "inf"."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_json(value._asdict())  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(value):
        return as_json(vars(value))
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value


def to_markdown(report: Report) -> str:
    """The verdict, the tables and the settings."""
    settings = yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", settings)), default=0))
    judges = f"## Judges\n\n{judge_tables(report)}\n\n{JUDGING}\n\n" if judge_tables(report) else ""
    compared = f"## Runs compared\n\n{comparison_table(report)}\n\n{COMPARED}\n\n" if report.comparisons else ""
    front = f"{plain(front_note(report))}\n\n" if report.front else ""
    return (
        f"# {plain(report.name)}\n\n{verdict(report)}\n\n{rounds_markdown(report)}{table(report)}\n\n{INTERVALS}\n\n{judges}{compared}{front}"
        f"## Settings\n\n{fence}yaml\n{settings}{fence}\n"
    )


def write_report(report: Report, pictures: dict[str, bytes], out: Path) -> Path:
    """Write report.json, report.md, report.html and the pictures; returns the HTML's path.

    The same files stand in `reports/ID/`, ID being of the settings, so that no evaluation takes the place of another with
    other settings, data or weights; `reports/newest` is a link to the last one.
    """
    kept = kept_reports(out) / digest_of({"name": report.name, "settings": report.settings})[:ID_LETTERS]
    kept.mkdir(parents=True, exist_ok=True)
    texts = {REPORT_FILE: to_json(report) + "\n", "report.md": to_markdown(report), PAGE: to_html(report, pictures)}
    for place in (kept, out):
        for name, text in texts.items():
            write_text(place / name, text)
    write_items(report, kept)
    _write_pictures(out / "pictures", pictures)
    link = kept.with_name(f".{NEWEST}.{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(kept.name)
    os.replace(link, kept.with_name(NEWEST))
    return out / PAGE


def _write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """The pictures of this report, and none of an earlier one's that it has not; other files stay as they are."""
    folder.mkdir(exist_ok=True)
    drawn = {f"{title.lower().replace(' ', '-')}.png": png for title, png in pictures.items()}
    known = folder / DRAWN
    before = read_json(known).get("drawn", []) if known.is_file() else []
    write_text(known, json.dumps({"drawn": sorted(drawn)}) + "\n")
    for path in folder.glob("*.png"):
        if path.name in before and path.name not in drawn:
            path.unlink()
    for name, png in drawn.items():
        (folder / name).write_bytes(png)


def report_folder(run: Path) -> Path:
    """Where the report of a run lies: its own folder, or of one with rounds, whose own table lies there, `report` in it."""
    return run / "report" if ledger_in(run) == ROUNDS_FILE else run


def kept_reports(folder: Path) -> Path:
    """Where the reports of a run, or of a folder that `--out` names, are kept."""
    return folder / "reports"


def write_items(report: Report, out: Path) -> None:
    """Write what the estimates are made from: `responses.jsonl` and `scores.jsonl`."""
    decoding = {"decoding": report.settings["decoding"]} if "decoding" in report.settings else {}
    responses = []
    for i, row in enumerate(report.answers):
        measured = {who: {name: values[i] for name, values in of.items()} for who, of in report.measured.items()}
        responses.append(json.dumps(row | ({"measured": measured} if measured else {}) | decoding, ensure_ascii=False))
    scores = []
    for name, subjects in report.pairs.items():
        for who, s in subjects.items():
            margins = report.margins.get(name, {}).get(who)
            for i, row in enumerate(zip(*s, strict=True)):
                line: dict[str, Any] = {"set": name, "subject": who, "pair": i}
                line |= {key: float(value) for key, value in zip(s._fields, row, strict=True)}
                line |= {"margin": float(margins[i])} if margins is not None else {}
                line |= {"prompt": report.prompts[name][i]} if name in report.prompts else {}
                scores.append(json.dumps(line))
    whole: list[tuple[str, str, Mapping[str, Any]]] = [
        *(("completion", name, by) for name, by in report.completions.items()),
        *(("label", name, by) for name, by in report.labels.items()),
    ]
    for kind, name, by in whole:
        for who, of in by.items():
            for i, row in enumerate(zip(*of, strict=True)):
                line = {"set": name, "subject": who, kind: i}
                line |= {key: float(value) for key, value in zip(of._fields, row, strict=True)}
                scores.append(json.dumps(line | {"prompt": report.prompts[name][i]}))
    out.mkdir(parents=True, exist_ok=True)
    for file, lines in (("responses.jsonl", responses), ("scores.jsonl", scores)):
        write_text(out / file, "".join(line + "\n" for line in lines))
