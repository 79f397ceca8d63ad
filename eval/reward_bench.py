"""Measures reward and preference models on sets of answers: RewardBench 2's best of 4 and ties, and cycles.

| rows | measured |
|---|---|
| prompt, chosen, rejected: texts or lists of texts | whether a chosen answer is preferred to all others, by `subset` too |
| the same with an `id` tied:N or ref:N | ties: pairs of a question with several right answers and one with a single one |
| prompt, cycle: a list of texts, each preferred to the next and the last to the first | how often the model says so |
"""

import argparse
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.data.loading import DataSource, read
from align.errors import DataError, RunError
from align.findings import printable
from align.judges.protocol import judge_all
from align.judges.scorers import Scorer
from eval.statistics.comparisons import prompt_labels
from eval.statistics.intervals import Estimate, mean_estimate
from eval.statistics.reward_bench import Margins, OfTies, best_of, cycle_estimates, ties_estimates
from eval.statistics.shares import share_estimate
from eval.verdicts import columns_of

from .agreement import ALL, judge_arguments, judges_of, told_of

HEAD = ("model", "of", "figure", "value", "95% interval", "n")
OF_TIES = re.compile(r"(ref|tied):(\w+)")
TIES, CYCLES = "ties", "cycles"
ABOUT = (
    "n counts prompts, of ties pairs of questions. accuracy: a chosen answer is preferred to all others; of k equals each is "
    "drawn with 1/k. above_chance: less what drawing any answer reaches. ties: RewardBench 2's measure (0.3 + 0.3 accuracy on both kinds "
    "of questions, 0.2 + 0.2 gaps that are larger than right answers are apart, 0.01 how much larger). cycle: each answer is "
    "preferred to the next and the last to the first; any_cycle: so, or the other way round. edges: the share of these "
    "preferences that the model has. A Bradley-Terry model has a scale: it says no cycle, and has all edges but one at best; "
    "above_a_scale is edges less that."
)


class Row(NamedTuple):
    """Answers to a prompt, the chosen ones first; of a cycle in its order."""

    prompt: Any
    answers: list[str]
    chosen: int
    """0 of a cycle."""
    subset: str
    kind: str
    """`ref` or `tied` of a question of ties, else empty."""
    number: str
    columns: dict[str, Any]


def reward_bench_table(argv: Sequence[str] | None = None, *, prog: str = "alignkit reward-bench") -> str:
    """A table of how well reward and preference models choose among several answers.

    Raises:
        RunError, DataError: If the file holds no such rows, or a model cannot be made or may not be asked.
    """
    about = "Measure reward and preference models on sets of answers: RewardBench 2's best of 4 and ties, and cycles."
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument(
        "file", metavar="FILE", help="rows of prompt, chosen and rejected (lists), or of prompt and cycle"
    )
    judge_arguments(parser)
    parser.add_argument(
        "--subset", metavar="COLUMN", default="subset", help="whose values are told apart; default: subset"
    )
    options = parser.parse_args(argv)
    makers = judges_of(options)
    rows = read_rows(Path(options.file), options.subset)
    found, notes = {}, [ABOUT]
    for name, make in makers.items():
        margins = margins_of(make(), rows)
        failed = sum(one is None for one in margins)
        notes += [f"{name}: {failed} of {len(rows)} rows have no verdict; they are in no figure."] * (failed > 0)
        found[name] = bench_estimates(rows, margins)
    return told_of(HEAD, found, notes, options.out)


def bench_estimates(rows: Sequence[Row], margins: Sequence[Margins | None]) -> dict[str, dict[str, Estimate]]:
    """Figures of all rows with chosen answers, of each subset of them, of the ties and of the cycles.

    A subset, or what has fewer than two prompts with a verdict, is left out.

    Raises:
        RunError: If nothing is left.
    """
    known = [(row, one) for row, one in zip(rows, margins, strict=True) if one is not None]
    plain = [(row, one) for row, one in known if row.chosen and not row.kind]
    groups = {ALL: plain} | {
        f"subset {name}": [(row, one) for row, one in plain if row.subset == name]
        for name in sorted({row.subset for row, _ in plain if row.subset})
    }
    found = {}
    for name, members in groups.items():
        labels = prompt_labels([row.prompt for row, _ in members])
        if len(set(labels.tolist())) > 1:
            right = np.array([best_of(one, row.chosen) for row, one in members])
            chance = np.array([row.chosen / len(row.answers) for row, _ in members])
            above = mean_estimate(right - chance, labels, bounds=(-1.0, 1.0))
            found[name] = {"accuracy": share_estimate(right, labels), "above_chance": above}
    by_number = {(row.kind, row.number): (row, one) for row, one in known if row.kind}
    pairs = [
        OfTies(one, row.chosen, by_number["ref", number][1], by_number["ref", number][0].chosen)
        for (kind, number), (row, one) in by_number.items()
        if kind == "tied" and ("ref", number) in by_number
    ]
    cycles = [one for row, one in known if not row.chosen]
    found |= {TIES: ties_estimates(pairs)} if len(pairs) > 1 else {}
    found |= {CYCLES: cycle_estimates(cycles)} if len(cycles) > 1 else {}
    if not found:
        raise RunError(f"an interval needs verdicts on at least 2 prompts, got {len(known)}")
    return found


def margins_of(scorer: Scorer, rows: Sequence[Row]) -> list[Margins | None]:
    """By row, how much each answer is preferred to each: differences of rewards where there are rewards, else log-odds."""
    score = getattr(scorer, "score", None)
    found: list[Margins | None] = [None] * len(rows)
    if score is not None and getattr(scorer, "dimension", 1) == 1:
        for i, row in enumerate(rows):
            with contextlib.suppress(ValueError):  # no finite reward: no verdict, which is counted
                one = np.asarray(score(row.prompt, row.answers, **row.columns), dtype=float)
                found[i] = one[:, None] - one[None, :]
        return found
    for size in sorted({len(row.answers) for row in rows}):
        places = [i for i, row in enumerate(rows) if len(row.answers) == size]
        given = judge_all(
            scorer,
            [rows[i].prompt for i in places],
            [rows[i].answers for i in places],
            [rows[i].columns for i in places],
        ).preferences
        for i, p in zip(places, given, strict=True):
            if not np.isnan(p).any():
                with np.errstate(divide="ignore"):
                    found[i] = np.log(p) - np.log1p(-p)
    return found


def read_rows(path: Path, subset: str = "subset") -> list[Row]:
    """The rows of a file, with what is measured of each.

    Raises:
        DataError: If it cannot be read, or a row is none of those above; it says which.
    """
    try:
        raw = read(DataSource(str(path))).to_list()
    except Exception as error:
        raise DataError(f"{printable(str(path), 300)}: cannot be read: {printable(str(error), 500)}") from error
    rows = [_row(row, f"{printable(str(path), 300)}: row {number}", subset) for number, row in enumerate(raw, start=1)]
    seen = {kind: [row.number for row in rows if row.kind == kind] for kind in ("ref", "tied")}
    alone = sorted(set(seen["ref"]) ^ set(seen["tied"]))
    twice = sorted({n for numbers in seen.values() for n in numbers if numbers.count(n) > 1})
    for numbers, told in ((alone, "has only one of ref and tied"), (twice, "is there twice")):
        if numbers:
            raise DataError(
                f"{printable(str(path), 300)}: the question of ties {printable(numbers[0])} {told}; each has both once"
            )
    return rows


def _row(row: dict[str, Any], where: str, subset: str) -> Row:
    if row.get("prompt") is None:
        raise DataError(f"{where}: no 'prompt'; there are {', '.join(map(printable, row))}")
    cycle, named = row.get("cycle"), OF_TIES.fullmatch(str(row.get("id")))
    of = str(row[subset]) if row.get(subset) is not None else ""
    columns = columns_of({k: v for k, v in row.items() if k not in ("chosen", "rejected", "cycle", "id", subset)})
    if cycle is not None:
        answers = _texts(cycle, f"{where}: cycle")
        if len(answers) < 3:
            raise DataError(f"{where}: cycle: needs 3 answers or more, got {len(answers)}")
        return Row(row["prompt"], answers, 0, of, "", "", columns)
    chosen, rejected = (_texts(row.get(side), f"{where}: {side}") for side in ("chosen", "rejected"))
    kind, number = (named[1], named[2]) if named else ("", "")
    if kind == "tied" and len(chosen) < 2:
        raise DataError(
            f"{where}: {named and named[0]} is a question of ties, and has one chosen answer; it needs 2 or more"
        )
    return Row(row["prompt"], chosen + rejected, len(chosen), of, kind, number, columns)


def _texts(value: Any, where: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: must be a text or a list of texts, got {printable(str(value), 100)}")
    return texts
