"""Gives every answer of a file its scores, each kept by answer; what a scorer fails on is asked again, counted and named.

A row has a `prompt` and `completions`. It gets `rewards`, for each completion an object of scores by the scorer's name, null
where there is none, and for scorers that compare also `preferences`, by name the matrix of who is preferred to whom.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from align.data.rows.scored import completions_of, prompt_of, text_of
from align.errors import RunError
from align.findings import printable
from align.rewards.load import is_reward, reward_value
from align.rewards.texts import CALLS, CONVERSATIONS

from .protocol import judge_all
from .scorers import Scorer

logger = logging.getLogger(__name__)
Row = Mapping[str, Any]
Scores = list[list[float | None]]
"""[row][answer]"""
ATTEMPTS = 3
SCORES = ("rewards", "preferences")
ROWS_ARE = ("prompt", "completions", *SCORES, "finished", "sources", CONVERSATIONS, CALLS)


class By(NamedTuple):
    """What scores the answers of all rows."""

    name: str
    kind: str
    """`reward`: a function of an answer. `judge`: compares answers. `column`: a list of numbers in the data."""
    make: Callable[[], Any]
    """The function, the scorer, or the name of the column; weights are loaded here."""
    log_odds: bool = False
    """Of a judge: the mean log-odds of being preferred, in place of the mean probability."""


class Scored(NamedTuple):
    """Rows with scores, and what has none."""

    rows: list[dict[str, Any]]
    unscored: dict[str, int]
    """By scorer, how many answers have no score."""
    reasons: dict[str, Counter[str]]
    """By scorer, why, and how often that was said."""

    def told(self) -> str:
        """What failed, in words; empty if nothing did."""
        parts = []
        for name, count in self.unscored.items():
            why = "; ".join(f"{reason}, {n} times" for reason, n in self.reasons[name].most_common(2))
            parts += [f"{name}: {count} answers have no score" + (f" ({why})" if why else "")] if count else []
        return "; ".join(parts)


def score_rows(rows: Sequence[Row], scorers: Sequence[By]) -> Scored:
    """Score all answers by all scorers, one scorer after the other.

    Scores that rows have already stay beside the new ones.

    Args:
        rows: With `prompt` and `completions`; what else they hold is handed to rewards as columns. Where there are
            `conversations`, rewards read these.
        scorers: At least one, of different names.

    Raises:
        RowError: If a row has no prompt or no completions.
        RunError: If a scorer gives no answer a score, a column of labels does not fit the answers, or rows have scores
            that the new ones would replace.
    """
    prompts, completions = [prompt_of(row) for row in rows], [completions_of(row) for row in rows]
    whole = [_conversations(row) or answers for row, answers in zip(rows, completions, strict=True)]
    _refuse_known(rows, completions, [by.name for by in scorers])
    found: dict[str, Scores] = {}
    preferences: dict[str, list[Any]] = {}
    reasons: dict[str, Counter[str]] = {}
    for by in scorers:
        reasons[by.name] = Counter()
        if by.kind == "column":
            found[by.name] = _labels(rows, completions, by.make())
        elif by.kind == "reward":
            found[by.name] = _rewarded(by.make(), rows, prompts, whole, reasons[by.name])
        else:
            texts = [[text_of(one) for one in answers] for answers in completions]
            matrices = _judged(by.make(), rows, prompts, texts, reasons[by.name])
            found[by.name] = [_of_matrix(matrix, by.log_odds) for matrix in matrices]
            preferences[by.name] = [_plain(matrix) for matrix in matrices]
    unscored = {name: sum(score is None for row in scores for score in row) for name, scores in found.items()}
    for name, count in unscored.items():
        if count == sum(map(len, completions)):
            why = reasons[name].most_common(1)
            raise RunError(
                f"{name}: no answer has a score{f'; it says: {why[0][0]}' if why else ''}; mend the scorer, or take another"
            )
    made = []
    for index, row in enumerate(rows):
        known = row.get("rewards") or [{}] * len(completions[index])
        each = [{**old, **{name: scores[index][k] for name, scores in found.items()}} for k, old in enumerate(known)]
        matrices = {**(row.get("preferences") or {}), **{name: rows_of[index] for name, rows_of in preferences.items()}}
        made.append({**row, "rewards": each, **({"preferences": matrices} if matrices else {})})
    return Scored(made, unscored, reasons)


def _conversations(row: Row) -> list[Any] | None:
    """Answers with their calls and results, which rewards read as in training; None where nothing could be called."""
    return [json.loads(text) for text in row[CONVERSATIONS]] if row.get(CONVERSATIONS) else None


def _refuse_known(rows: Sequence[Row], completions: Sequence[Sequence[Any]], names: Sequence[str]) -> None:
    """Refuse rows whose scores the new ones would replace, or stand beside without a name."""
    for number, (row, answers) in enumerate(zip(rows, completions, strict=True), start=1):
        known = row.get("rewards")
        if known is None:
            continue
        if not isinstance(known, list) or len(known) != len(answers) or not all(isinstance(o, Mapping) for o in known):
            raise RunError(
                f"row {number}: has `rewards` that are no scores by name, one object for each answer, which new ones would "
                "replace; rename the column, or leave it out"
            )
        twice = [name for name in names if any(name in one for one in known)]
        if twice:
            raise RunError(
                f"row {number}: has a score {twice[0]!r} already; give the new one another name (--by NAME={{kind: ...}}), or "
                "score the file that has none"
            )


def _labels(rows: Sequence[Row], completions: Sequence[Sequence[Any]], column: str) -> Scores:
    problems = []
    for number, (row, answers) in enumerate(zip(rows, completions, strict=True), start=1):
        labels = row.get(column)
        if not isinstance(labels, list) or len(labels) != len(answers) or not all(map(is_reward, labels)):
            problems.append(number)
    if problems:
        raise RunError(
            f"column {column!r}: must be a list of one number or null for each completion; is not in {len(problems)} of "
            f"{len(rows)} rows (first: {problems[0]})"
        )
    return [[None if one is None else float(one) for one in row[column]] for row in rows]


def _rewarded(
    reward: Callable[..., Any],
    rows: Sequence[Row],
    prompts: Sequence[Any],
    completions: Sequence[Sequence[Any]],
    reasons: Counter[str],
) -> Scores:
    """Each row at once; where that fails, its answers one by one, so that one of them does not take the others along."""
    scores: Scores = []
    for row, prompt, answers in zip(rows, prompts, completions, strict=True):
        columns = {name: value for name, value in row.items() if name not in ROWS_ARE}

        def asked(some: Sequence[Any], prompt: Any = prompt, columns: Mapping[str, Any] = columns) -> list[Any]:
            each = {name: [value] * len(some) for name, value in columns.items()}
            given = list(reward(prompts=[prompt] * len(some), completions=list(some), **each))
            if len(given) != len(some) or not all(map(is_reward, given)):
                raise ValueError(f"no finite number for each answer but {printable(str(given[:3]), 100)}")
            return [None if one is None else reward_value(one) for one in given]

        try:
            scores.append(asked(answers))
        except Exception:  # functions of strangers raise anything
            scores.append([_one(asked, answer, reasons) for answer in answers])
    return scores


def _one(asked: Callable[[Sequence[Any]], list[Any]], answer: Any, reasons: Counter[str]) -> float | None:
    failure = ""
    for _ in range(ATTEMPTS):
        try:
            return asked([answer])[0]
        except Exception as error:  # as above
            failure = printable(f"{error}".partition("\n")[0] or type(error).__name__, 200)
    reasons[failure] += 1
    return None


def _judged(
    scorer: Scorer, rows: Sequence[Row], prompts: Sequence[Any], texts: Sequence[Sequence[str]], reasons: Counter[str]
) -> list[np.ndarray]:
    """The preferences of each row; NaN where there is no verdict. Rows of as many answers are judged together."""
    found: dict[int, np.ndarray] = {}
    for k in sorted({len(answers) for answers in texts}):
        indices = [index for index, answers in enumerate(texts) if len(answers) == k]
        if k < 2:
            reasons["one answer alone cannot be compared"] += len(indices)
            found |= {index: np.full((k, k), np.nan) for index in indices}
            continue
        columns = [{n: v for n, v in rows[index].items() if n not in ROWS_ARE} for index in indices]
        judged = judge_all(scorer, [prompts[i] for i in indices], [texts[i] for i in indices], columns)
        reasons.update(printable(failure.error, 200) for failure in judged.failures)
        found |= dict(zip(indices, judged.preferences, strict=True))
    return [found[index] for index in range(len(texts))]


def _of_matrix(matrix: np.ndarray, log_odds: bool) -> list[float | None]:
    """The mean over all answers to be met, itself among them, for it is the policy's; none where a verdict is missing."""
    with np.errstate(divide="ignore"):
        values = np.log(matrix) - np.log1p(-matrix) if log_odds else matrix
    return [float(one) if np.isfinite(one) else None for one in values.mean(axis=1)]


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(one) if np.isfinite(one) else None for one in row] for row in matrix]
