"""What `fronts.py` needs to know of a task, and the first of them: easy word problems with three rewards.

SmolLM2-135M-Instruct after the warm-up of `scripts/bench/quality/math_objectives.py`, and its problems; rewards are
correctness, brevity (one minus an answer's characters over 60, at least 0) and clarity.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from math_objectives import HELD_OUT, problems, warm_up, write

from align.rewards.load import REWARDS, Known
from align.rewards.texts import text_of

CHARACTERS = 60


class Task(NamedTuple):
    """A base, prompts and rewards. Rewards are in [0, 1], so that volumes are over the corner 0."""

    result: str
    """Name of the files with figures and picture."""
    objectives: tuple[str, ...]
    steps: int
    """Of all policies of a method together."""
    tokens: int
    """Of an answer, at most."""
    held_out: int
    """Prompts that every policy answers once."""
    prepare: Callable[[Path, Path], dict[str, Any]]
    """From the folder of data: the rewards are known, and the folder of the study holds `warm`, `train.jsonl` and
    `held-out.jsonl`. Gives figures of the task itself, which are reported beside those of the methods."""
    checked: str = ""
    """What is looked at in answers that no reward says, and is not learnt from."""
    check: Callable[[list[dict[str, str]], str], float] | None = None
    """That, in [0, 1], of a prompt and an answer."""


def brevity(completions: list[Any], **_: Any) -> list[float]:
    """One minus the characters of an answer over 60, at least 0."""
    return [max(0.0, 1 - len(text_of(one)) / CHARACTERS) for one in completions]


def prepare_math(data: Path, out: Path) -> dict[str, Any]:
    """Word problems, the warmed-up model, and brevity."""
    REWARDS["brevity"] = Known(brevity, 0, 1)
    if not (out / "warm").is_dir():
        warm_up(data, out)
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in problems(data)]
    write(out / "held-out.jsonl", rows[:HELD_OUT])
    write(out / "train.jsonl", rows[HELD_OUT:])
    return {}


MATH = Task("fronts", ("correctness", "brevity", "clarity"), 21, 32, HELD_OUT, prepare_math)
