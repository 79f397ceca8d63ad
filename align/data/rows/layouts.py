"""Reads files with labels, ranks, scores or several columns to a text, known by their columns, as rows of ours.

Each layout is read from one row of the source (and the one before it) as rows with our names. Where nobody would read the
columns otherwise it is taken without being named; where there is a choice (which completions make a pair, which label
counts) `layout: NAME` makes it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .completions import label_of
from .messages import RowError, kind_of, messages_of

Row = Mapping[str, Any]


class LeftOut(Exception):
    """Why a good row makes no row of ours, such as a tie."""


@dataclass
class Prefer:
    """Which of two answers is the better one, where a column says so."""

    column: str
    """The column of the label."""
    answers: dict[str, list[Any]]
    """The columns of the two answers, each with the values of the label under which it is the better one."""
    ties: list[Any] = field(default_factory=list)
    """Values under which neither is; such rows are left out, and counted."""

    def __post_init__(self) -> None:
        if len(self.answers) != 2:
            raise ValueError(f"answers: name the columns of two answers, got {len(self.answers)}")

    def read(self, row: Row) -> dict[str, Any]:
        """The two answers as `chosen` and `rejected`.

        Raises:
            RowError: If the label is missing or has a value that is not named.
            LeftOut: If it is a tie.
        """
        value = row[self.column]
        if any(_same(value, tie) for tie in self.ties):
            raise LeftOut(f"{self.column} is a tie")
        better = [name for name, values in self.answers.items() if any(_same(value, each) for each in values)]
        if len(better) != 1:
            raise RowError("label", f"{self.column} is {value!r}, of which `prefer` says nothing")
        (worse,) = set(self.answers) - set(better)
        return {"chosen": row[better[0]], "rejected": row[worse]}


@dataclass(frozen=True)
class Reading:
    """How a source says that its columns are read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name to theirs, where they differ."""
    layout: str | None = None
    """A key of `LAYOUTS`."""
    prefer: Prefer | None = None
    ignore: Sequence[str] = ()
    """Columns that are not read, whatever they seem to mean."""
    as_messages: bool = False
    """Whether rows of plain text become messages."""


class Layout(NamedTuple):
    """A layout of columns."""

    rows: str
    needs: tuple[str, ...]
    about: str
    read: Callable[[Row, Row | None], Iterator[Row]]
    further: tuple[str, ...] = ()
    """Columns that it reads too, if they are there."""
    named: bool = False
    """Whether it is read only if it is named."""


def _labelled(prompt: str, prefer: Prefer) -> Callable[[Row, Row | None], Iterator[Row]]:
    def read(row: Row, before: Row | None) -> Iterator[Row]:
        yield {"prompt": row[prompt], **prefer.read(row)}

    return read


def _alpaca(*answers: tuple[str, str]) -> Callable[[Row, Row | None], Iterator[Row]]:
    def read(row: Row, before: Row | None) -> Iterator[Row]:
        for name in ("instruction", "input"):
            if row.get(name) is not None and not isinstance(row[name], str):
                raise RowError("wrong-type", f"{name} is no text but {kind_of(row[name])}")
        prompt: Any = "\n".join(part for name in ("instruction", "input") if (part := row.get(name) or "").strip())
        sides = {ours: row[theirs] for ours, theirs in answers}
        turns = row.get("history") or []
        if turns and not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
            raise RowError("wrong-type", "history is not a list of questions with their answers")
        if turns:
            names = ("user", "assistant")
            said = [{"role": r, "content": c} for turn in turns for r, c in zip(names, turn, strict=True)]
            prompt = [*said, {"role": "user", "content": prompt}]
            sides = {ours: [{"role": "assistant", "content": text}] for ours, text in sides.items()}
        yield {"prompt": prompt, **sides}

    return read


def _arena(row: Row, before: Row | None) -> Iterator[Row]:
    by_winner = {"conversation_a": ["model_a"], "conversation_b": ["model_b"]}
    yield Prefer("winner", by_winner, ["tie", "tie (bothbad)"]).read(row)


def _strength(row: Row, before: Row | None) -> Iterator[Row]:
    strength = _finite(row["preference_strength"], "preference_strength")
    if strength == 0:
        raise LeftOut("preference_strength is a tie")
    better, worse = ("response_1", "response_2") if strength < 0 else ("response_2", "response_1")
    yield {"prompt": row["prompt"], "chosen": row[better], "rejected": row[worse]}


def _of_several(
    prompt: str, answers: str, text: str, score: str, *, least: bool
) -> Callable[[Row, Row | None], Iterator[Row]]:
    """The best of several scored answers against the worst."""

    def read(row: Row, before: Row | None) -> Iterator[Row]:
        several = row[answers]
        if not isinstance(several, list) or not all(isinstance(one, Mapping) for one in several):
            raise RowError("wrong-type", f"{answers} is no list of answers")
        scored = [(_finite(one.get(score), score), one.get(text)) for one in several]
        if len({value for value, _ in scored}) < 2:
            raise LeftOut(f"no two answers differ in their {score}")
        first, last = (choose(scored, key=lambda each: each[0]) for choose in ((min, max) if least else (max, min)))
        yield {"prompt": row[prompt], "chosen": first[1], "rejected": last[1]}

    return read


def _two_rows(row: Row, before: Row | None) -> Iterator[Row]:
    if before is None or before["prompt"] != row["prompt"]:
        return
    scores = [_finite(each["helpfulness"], "helpfulness") for each in (before, row)]
    if scores[0] == scores[1]:
        raise LeftOut("two answers are equally helpful")
    better, worse = (before, row) if scores[0] > scores[1] else (row, before)
    yield {"prompt": row["prompt"], "chosen": better["response"], "rejected": worse["response"]}


def _good(row: Row, before: Row | None) -> Iterator[Row]:
    if not label_of(row["label"]):
        raise LeftOut("label is false")
    yield {"prompt": row["prompt"], "completion": row["completion"]}


def _turns(name: str) -> Callable[[Row, Row | None], Iterator[Row]]:
    def read(row: Row, before: Row | None) -> Iterator[Row]:
        messages = messages_of(row[name], name)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i]
        if not answers:
            raise RowError("no-prompt", "the conversation holds no answer of the assistant to anything")
        for index in answers:
            yield {"prompt": messages[:index], "completion": [messages[index]]}

    return read


def _pku(label: str) -> Layout:
    prefer = Prefer(label, {"response_0": [0], "response_1": [1]})
    needs = ("prompt", "response_0", "response_1", label)
    return Layout("pairs", needs, f"{label} says which answer is chosen", _labelled("prompt", prefer), named=True)


A_OR_B = Prefer("labels", {"human_ref_A": [1], "human_ref_B": [0]})
SIDES = (("chosen", "chosen"), ("rejected", "rejected"))
LAYOUTS: dict[str, Layout] = {
    "alpaca_pairs": Layout(
        "pairs", ("instruction", "input", "chosen", "rejected"), "the prompt is instruction and input", _alpaca(*SIDES), ("history",)
    ),
    "shp": Layout(
        "pairs", ("history", "human_ref_A", "human_ref_B", "labels"), "labels is 1 if answer A is chosen, 0 if B", _labelled("history", A_OR_B)
    ),
    "helpsteer2_preference": Layout(
        "pairs", ("prompt", "response_1", "response_2", "preference_strength"),
        "a negative preference_strength chooses response_1, a positive one response_2; 0 is a tie", _strength,
    ),
    "arena": Layout(
        "pairs", ("conversation_a", "conversation_b", "winner"), "the winner's conversation is chosen; ties are left out", _arena
    ),
    "pku_better": _pku("better_response_id"),
    "pku_safer": _pku("safer_response_id"),
    "ultrafeedback": Layout(
        "pairs", ("instruction", "completions"), "the completion of the highest overall_score against the lowest",
        _of_several("instruction", "completions", "response", "overall_score", least=False), named=True,
    ),
    "nectar": Layout(
        "pairs", ("prompt", "answers"), "the answer of the first rank against the last",
        _of_several("prompt", "answers", "answer", "rank", least=True), named=True,
    ),
    "helpsteer2": Layout(
        "pairs", ("prompt", "response", "helpfulness"), "of two rows in a row with one prompt the more helpful response is chosen",
        _two_rows, named=True,
    ),
    "alpaca": Layout(
        "completions", ("instruction", "output"), "the prompt is instruction and input, the completion output",
        _alpaca(("completion", "output")), ("input", "history"),
    ),
    "kto": Layout(
        "completions", ("prompt", "completion", "label"), "completions labelled true are trained on, others left out", _good, named=True
    ),
    "turns": Layout(
        "completions", ("messages",), "every answer of the assistant is a completion, not only the last", _turns("messages"), named=True
    ),
    "sharegpt_turns": Layout(
        "completions", ("conversations",), "every answer of the assistant is a completion, not only the last", _turns("conversations"),
        named=True,
    ),
}  # fmt: skip
"""By name, in the order in which they are looked for."""
SELDOM = ("turns", "sharegpt_turns")
"""Layouts that are never proposed: without them the last answer is the completion."""


def known_layout(names: Sequence[str], rows: str) -> list[str]:
    """Names of the layouts of these rows whose columns are all there, the one that needs most first."""
    fitting = [
        name
        for name, layout in LAYOUTS.items()
        if layout.rows == rows and name not in SELDOM and set(layout.needs) <= set(names)
    ]
    return sorted(fitting, key=lambda name: -len(LAYOUTS[name].needs))


def _same(value: Any, named: Any) -> bool:
    return value == named or (value is not None and str(value) == str(named))


def _finite(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RowError("wrong-type", f"{name} is no finite number but {kind_of(value)}")
    return float(value)
