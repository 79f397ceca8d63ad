"""Counts the verifiable instructions that answers follow, as IFEval's accuracies.

Source: Zhou et al. 2023, "Instruction-following evaluation for large language models" (arXiv:2311.07911), section 2.2
(strict and loose accuracy) and 3 (by prompt and by instruction). Deviations:

- The checkers are those of `align.data.making.constraints`, which says where they differ from the published ones.
- An instruction without a checker (a language, here) or with arguments that its checker does not take counts as neither
  followed nor broken: it is counted by kind in `unchecked`, and its prompt is left out of the accuracies by prompt.
- Every figure has an interval, over prompts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from align.data.making.constraints import Constraint
from eval.statistics.intervals import Estimate
from eval.statistics.shares import share_estimate


class Followed(NamedTuple):
    """One instruction and one answer. Both are None if the instruction cannot be checked, and `reason` says why."""

    kind: str
    strict: bool | None
    loose: bool | None
    reason: str = ""

    @property
    def family(self) -> str:
        """What comes before the colon of the kind."""
        return self.kind.partition(":")[0]


@dataclass(frozen=True)
class InstructionReport:
    """Accuracies of answers to prompts with verifiable instructions."""

    estimates: dict[str, Estimate]
    """`prompt/strict`, `instruction/strict` and `<family>/strict` for each family of instructions, and the same with
    `loose`. `prompt/…` is absent if every prompt has an instruction that cannot be checked."""
    unchecked: dict[str, int]
    """How many instructions could not be checked, for each reason."""
    prompts_left_out: int
    """Answers to prompts with such an instruction: not in `prompt/…`."""
    blank: int
    """Answers without a visible character: they follow nothing."""
    followed: list[list[Followed]]
    """For each answer its instructions, in the order of the row."""
    values: dict[str, tuple[Float[np.ndarray, " items"], Shaped[np.ndarray, " items"]]]
    """Under the names of the estimates, what each is the mean of: 0 or 1 for each item, and the item's prompt."""


def loose_variants(text: str) -> list[str]:
    """The eight texts that loose accuracy looks at: with or without first line, last line, and asterisks.

    A model that begins with "Sure, here it is:" or marks words as bold is not punished for it.
    """
    lines = text.split("\n")
    cut = [
        text if (first, last) == (0, 0) else "\n".join(lines[first : len(lines) - last]).strip()
        for first, last in product((0, 1), repeat=2)
    ]
    return cut + [variant.replace("*", "") for variant in cut]


def follow(row: Mapping[str, Any], answer: str) -> list[Followed]:
    """Check one answer against the instructions of its row.

    Args:
        row: `instruction_id_list`, names of kinds, and `kwargs`, for each its arguments. None is an absent argument.
        answer: The answer.

    Raises:
        ValueError: If the row has no instructions, or not as many arguments as instructions.
    """
    kinds, arguments = row["instruction_id_list"], row["kwargs"]
    if not kinds or len(kinds) != len(arguments):
        raise ValueError(
            f"instruction_id_list and kwargs must be of one length, at least 1; got {len(kinds)} and {len(arguments)}"
        )
    found = []
    variants = loose_variants(answer)
    for kind, given in zip(kinds, arguments, strict=True):
        try:
            constraint = Constraint(kind, given or {})
        except ValueError as error:
            found.append(Followed(str(kind), None, None, str(error)))
            continue
        strict = _follows(constraint, answer)
        found.append(Followed(kind, strict, strict or any(_follows(constraint, variant) for variant in variants)))
    return found


def _follows(constraint: Constraint, text: str) -> bool:
    """A blank text follows nothing, though it has no comma."""
    return bool(text.strip()) and constraint.holds(text)


def instruction_following(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[str], *, level: float = 0.95
) -> InstructionReport:
    """Accuracies by prompt, by instruction and by family of instructions.

    Intervals are those of `share_estimate` over prompts: the instructions of one prompt, and several answers to it, are
    not independent.

    Args:
        rows: One per answer, as `follow` takes them, with `prompt`. Rows of the same prompt are one cluster.
        answers: The texts.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: If rows and answers differ in number, or no instruction can be checked; as `follow`, with the number
            of the row.
    """
    if len(rows) != len(answers):
        raise ValueError(f"rows and answers must be as many, got {len(rows)} and {len(answers)}")
    followed = []
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        try:
            followed.append(follow(row, answer))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(repr(row["prompt"]) for row in rows))}
    clusters = [prompts[repr(row["prompt"])] for row in rows]
    complete = [index for index, items in enumerate(followed) if all(item.strict is not None for item in items)]
    checked = [(clusters[i], item) for i, items in enumerate(followed) for item in items if item.strict is not None]
    if not checked:
        raise ValueError(f"none of the instructions of {len(rows)} rows can be checked: {_reasons(followed)}")
    items: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(name: str, values: list[float], of: list[int]) -> None:
        items[name] = np.array(values), np.array(of)

    for which in ("strict", "loose"):
        if complete:
            whole = [float(all(getattr(item, which) for item in followed[i])) for i in complete]
            add(f"prompt/{which}", whole, [clusters[i] for i in complete])
        add(f"instruction/{which}", [float(getattr(i, which)) for _, i in checked], [c for c, _ in checked])
        for family in sorted({item.family for _, item in checked}):
            chosen = [(cluster, item) for cluster, item in checked if item.family == family]
            add(f"{family}/{which}", [float(getattr(i, which)) for _, i in chosen], [c for c, _ in chosen])
    return InstructionReport(
        estimates={name: share_estimate(*pair, level=level) for name, pair in items.items()},
        unchecked=_reasons(followed),
        prompts_left_out=len(rows) - len(complete),
        blank=sum(not answer.strip() for answer in answers),
        followed=followed,
        values=items,
    )


def _reasons(followed: list[list[Followed]]) -> dict[str, int]:
    return dict(Counter(item.reason for items in followed for item in items if item.strict is None))
