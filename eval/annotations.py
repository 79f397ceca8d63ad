"""Computes the figures of a leaderboard from verdicts that are stored: plain and length-controlled win rates.

One JSON object a line, or an array of them, in AlpacaEval's columns: `preference` (1 to 2: the probability that the model's
answer beats the baseline's, and 1), `generator_2` or `generator` (the model), `instruction` or `instruction_sha`, and the
answers `output_2` and `output_1`, or their lengths in characters `len_2` and `len_1`.
"""

import argparse
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from align.errors import DataError
from align.files import refuse_input, write_text
from align.findings import printable
from eval.report.tables import ends, markdown_table
from eval.report.write import as_json
from eval.statistics.intervals import Estimate, claimed
from eval.statistics.length_control import instruction_difficulty, length_controlled_win_rate
from eval.statistics.win_rate import WinRate, win_rate

HEAD = ("model", "win rate, %", "standard error", "discrete, %", "won / tied / lost", "failed", "length-controlled, %", "without difficulty, %", "n")  # fmt: skip
RESIDUALS = ("model", "win rate", "standard error", "discrete", "length-controlled", "without difficulty")
PUBLISHED = {"win_rate": "win_rate", "standard_error": "standard_error", "discrete_win_rate": "discrete_win_rate"}
CONTROLLED = "length_controlled_winrate"
ABOUT = (
    "95% intervals over prompts. Length-controlled: with the difficulty of each instruction from the verdicts on the other "
    "models of the file (one model has none), in place of the leaderboard's own table."
)


class Judged(NamedTuple):
    """Verdicts on one model; each of shape (prompts,), in one order of the prompts for all models."""

    wins: Float[np.ndarray, " prompts"]
    """Probability that its answer wins; NaN without a verdict."""
    lengths: Float[np.ndarray, " prompts"]
    """Characters."""
    ref_lengths: Float[np.ndarray, " prompts"]


class Figures(NamedTuple):
    """What a leaderboard says of a model; rates are shares."""

    plain: WinRate
    controlled: Estimate | None
    """None where there is no other model, or the fit cannot be made."""
    without_difficulty: Estimate | None


def annotations_table(argv: Sequence[str] | None = None, *, prog: str = "alignkit win-rates") -> str:
    """A table of win rates, and with --published how far they are from a leaderboard's.

    Raises:
        DataError: If a file cannot be read, or a row lacks what is needed.
    """
    about = "Win rates from stored verdicts in AlpacaEval's columns: plain, and controlled for length."
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument("file", type=Path, metavar="FILE", help=".jsonl, .json, or either with .gz")
    parser.add_argument(
        "--published", type=Path, metavar="FILE.json", help="a leaderboard's figures by model: the residuals are shown"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.json", help="write the figures there too")
    options = parser.parse_args(argv)
    if options.out is not None:
        refuse_input(options.out, options.file, *filter(None, [options.published]))
    published = None if options.published is None else _published(options.published)
    found = figures_of(read_annotations(options.file))
    if options.out is not None:
        write_text(options.out, json.dumps(as_json({k: v._asdict() for k, v in found.items()}), indent=2) + "\n")
    ordered = sorted(found.items(), key=lambda item: -item[1].plain.win_rate.value)
    told = [markdown_table(HEAD, [_cells(name, each) for name, each in ordered], texts=1), ABOUT]
    if published is not None:
        told += _residuals({name: each for name, each in ordered if name in published}, published)
    return "\n\n".join(told)


def figures_of(board: Mapping[str, Judged]) -> dict[str, Figures]:
    """Figures of every model; the difficulty of instructions is that of the others."""
    found = {}
    for name, own in board.items():
        others = [np.where(np.isnan(w), np.nanmean(w), w) for other, (w, *_) in board.items() if other != name]
        known = ~np.isnan(own.wins)
        difficulty = instruction_difficulty(np.stack(others)[:, known]) if others else None
        controlled = None if difficulty is None else _controlled(own, known, difficulty)
        found[name] = claimed(Figures(win_rate(own.wins), controlled, _controlled(own, known, None)))
    return found


def _controlled(own: Judged, known: np.ndarray, difficulty: np.ndarray | None) -> Estimate | None:
    try:
        wins, lengths, ref_lengths = (values[known] for values in own)
        return length_controlled_win_rate(wins, lengths, ref_lengths, difficulty=difficulty).win_rate
    except ValueError:  # nothing tells length and model apart
        return None


def read_annotations(path: Path) -> dict[str, Judged]:
    """Verdicts by model, over the prompts that all models of the file have.

    Raises:
        DataError: If it cannot be read, a row lacks a column or has a value out of range, a model has a prompt twice, or
            fewer than two prompts are everybody's.
    """
    rows: dict[str, dict[str, tuple[float, float, float]]] = {}
    for number, row in enumerate(_objects(path), start=1):
        where = f"{printable(str(path), 300)}: row {number}"
        model, prompt = (
            _first(row, names, where) for names in (("generator_2", "generator"), ("instruction_sha", "instruction"))
        )
        verdict = row.get("preference")
        if verdict is not None and not (isinstance(verdict, int | float) and 1 <= verdict <= 2):
            raise DataError(f"{where}: preference: must be from 1 to 2, or null, got {printable(str(verdict))}")
        own, other = (_length(row, side, where) for side in ("2", "1"))
        of_model = rows.setdefault(str(model), {})
        if str(prompt) in of_model:
            raise DataError(f"{where}: the second verdict on {printable(str(model))} for this instruction; keep one")
        of_model[str(prompt)] = (math.nan if verdict is None else verdict - 1, own, other)
    shared = set.intersection(*(set(of) for of in rows.values())) if rows else set()
    if len(shared) < 2:
        raise DataError(
            f"{printable(str(path), 300)}: an interval needs 2 instructions that all models answer, got {len(shared)}"
        )
    ordered = sorted(shared)
    return {name: Judged(*np.array([of[key] for key in ordered], dtype=float).T) for name, of in rows.items()}


def _objects(path: Path) -> list[dict[str, Any]]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8")
        found = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DataError(f"{printable(str(path), 300)}: cannot be read: {printable(str(error), 300)}") from None
    if not all(isinstance(row, dict) for row in found):
        raise DataError(f"{printable(str(path), 300)}: every row must be a JSON object")
    return found


def _first(row: Mapping[str, Any], names: Sequence[str], where: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise DataError(f"{where}: no {' or '.join(map(repr, names))}; there are {', '.join(map(printable, row))}")


def _length(row: Mapping[str, Any], side: str, where: str) -> float:
    value = _first(row, (f"len_{side}", f"output_{side}"), where)
    if isinstance(value, str):
        return float(len(value))
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DataError(f"{where}: len_{side}: must be a length in characters, got {printable(str(value))}")
    return float(value)


def _published(path: Path) -> dict[str, dict[str, float]]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        wanted = (*PUBLISHED.values(), CONTROLLED)
        return {
            name: {key: float(of[key]) for key in wanted if of.get(key) not in (None, "")} for name, of in read.items()
        }
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"--published {printable(str(path), 300)}: no figures by model: {printable(str(error), 200)}"
        ) from None


def _cells(name: str, found: Figures) -> tuple[str, ...]:
    plain = found.plain
    return (
        name, _percent(plain.win_rate), f"{100 * plain.standard_error:.3f}", _percent(plain.discrete_win_rate),
        f"{plain.wins} / {plain.ties} / {plain.losses}", str(plain.failed), _percent(found.controlled),
        _percent(found.without_difficulty), str(plain.win_rate.n),
    )  # fmt: skip


def _percent(e: Estimate | None) -> str:
    if e is None:
        return "n/a"
    value, low, high = (100 * v for v in e[:3])
    return f"{value:.3f} {ends(Estimate(value, low, high, e.n), '.2f')}"


def _residuals(found: Mapping[str, Figures], published: Mapping[str, Mapping[str, float]]) -> list[str]:
    """How far each figure is from the published one, in points, and the mean of the sizes."""
    rows, sizes = [], {name: [] for name in RESIDUALS[1:]}
    for name, each in found.items():
        ours = (
            each.plain.win_rate.value, each.plain.standard_error, each.plain.discrete_win_rate.value,
            each.controlled and each.controlled.value, each.without_difficulty and each.without_difficulty.value,
        )  # fmt: skip
        theirs = [published[name].get(key) for key in (*PUBLISHED.values(), CONTROLLED, CONTROLLED)]
        cells = []
        for title, own, other in zip(RESIDUALS[1:], ours, theirs, strict=True):
            off = None if own is None or other is None else 100 * own - other
            cells.append("n/a" if off is None else f"{off:+.1e}" if abs(off) < 1e-6 else f"{off:+.2f}")
            sizes[title] += [] if off is None else [abs(off)]
        rows.append((name, *cells))
    mean = [
        f"{np.mean(values):.1e}" if np.mean(values) < 1e-6 else f"{np.mean(values):.2f}"
        for values in sizes.values()
        if values
    ]
    if not rows:
        return ["No model of the file is in the published figures."]
    rows.append(("mean of the sizes", *(mean if len(mean) == len(sizes) else [""] * len(sizes))))
    return ["Off the published figures, in points:", markdown_table(RESIDUALS, rows, texts=1)]
