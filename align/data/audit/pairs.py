"""Inspects normalised preference pairs before anything is tokenised.

An `error` is what training refuses (`normalise`, `refuse_damaged`); a `warning` trains, though probably not on what was
meant; a `note` is a figure. Rows are gone through in slices. Of each pair 28 bytes stay, and of evaluation sets the prompts.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from align.data.rows.messages import SYSTEM_ROLES
from align.findings import Finding, shown
from align.intervals import wilson

from .duplicates import (
    among,
    at,
    circular,
    collect,
    contradictions,
    contradictory,
    digests,
    first_like,
    leaked,
    numbering,
    row_digest,
    slices,
)
from .near_duplicates import near_duplicates
from .pair_rules import RULES, broken

LONGER = 0.65  # share of pairs with the longer answer chosen (or rejected) that is worth a warning
FEW = 50  # pairs below which a share says little


def audit_pairs(dataset: Dataset, *, where: str, numbers: Sequence[int] | None = None) -> list[Finding]:
    """Go through the pairs of one set.

    Args:
        dataset: Normalised pairs: columns `prompt`, `chosen`, `rejected`, all texts or all lists of messages.
        where: What to call the set.
        numbers: Number of each row in its source; by default the column `alignkit_row`, or they count from 1.

    Returns:
        One finding for each rule that some pairs do not meet, with all their rows, errors first.
    """
    numbers = numbering(dataset) if numbers is None else numbers
    seen = _Seen(numbers)
    pairs = collect(seen.digests(dataset))
    total = len(pairs.chosen)
    found = []
    for key, (level, name, words, remedy) in RULES.items():
        if key in seen.rows:
            message = f"{len(seen.rows[key])} of {total} pairs {words}{seen.example[key]}"
            found.append(Finding(level, name, where, message, remedy, tuple(seen.rows[key])))
    conflict = contradictions(pairs, where=where, numbers=numbers)
    if conflict is not None:
        found.append(conflict)
    again = first_like(pairs) != np.arange(total)
    if again.any():
        message = f"{again.sum()} of {total} pairs repeat an earlier pair, which weighs as often as it is there"
        found.append(
            Finding(
                "warning",
                "duplicate-pairs",
                where,
                message,
                "`alignkit data fix` keeps the first of each",
                at(again, numbers),
            )
        )
    against = contradictory(pairs)
    ring = circular(pairs) & ~against & (pairs.chosen != pairs.rejected)
    both = among(pairs.chosen, pairs.rejected) & ~against & ~ring
    if ring.any():
        message = f"{ring.sum()} of {total} pairs go round in a circle: no order of the answers fits them"
        found.append(
            Finding("warning", "answer-chosen-and-rejected", where, message, "look at their labels", at(ring, numbers))
        )
    if both.any():
        message = f"the chosen answer of {both.sum()} of {total} pairs is rejected in another pair with the same prompt"
        remedy = "nothing, if answers were ranked; if they were right or wrong, look at the labels"
        found.append(Finding("note", "answer-chosen-and-rejected", where, message, remedy, at(both, numbers)))
    found += _length_bias(seen, where)
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.level))


class _Seen:
    """What one pass over the rows leaves behind."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers
        self.rows: dict[str, list[int]] = defaultdict(list)
        self.example: dict[str, str] = {}
        self.longer = self.shorter = self.even = 0

    def digests(self, dataset: Dataset) -> Iterator[tuple[int, int, int]]:
        position = 0
        for rows in slices(dataset):
            for prompt, chosen, rejected in zip(rows["prompt"], rows["chosen"], rows["rejected"], strict=True):
                for key, example in broken(prompt, chosen, rejected):
                    self.rows[key].append(int(self.numbers[position]))
                    self.example.setdefault(key, example)
                gap = _characters(chosen) - _characters(rejected)
                self.longer, self.shorter, self.even = (
                    self.longer + (gap > 0),
                    self.shorter + (gap < 0),
                    self.even + (gap == 0),
                )
                position += 1
                yield row_digest(prompt, chosen, rejected)


def _characters(answer: Any) -> int:
    return len(answer) if isinstance(answer, str) else len(answer[-1]["content"])


def _length_bias(seen: _Seen, where: str) -> list[Finding]:
    n = seen.longer + seen.shorter
    if n < FEW:
        return []
    share = seen.longer / n
    low, high = wilson(seen.longer, n)
    message = (
        f"the longer answer is chosen in {share:.0%} [{low:.0%}, {high:.0%}] of the {n} pairs with answers of different "
        "length (in characters)"
    )
    if not LONGER > share > 1 - LONGER and not low <= 0.5 <= high:
        side = "longer" if share > 0.5 else "shorter"
        message += f": a model that only learns to write {side} answers gets as many right"
        remedy = "compare evaluation with that share, and watch the length of answers"
        return [Finding("warning", "length-bias", where, message, remedy)]
    return [Finding("note", "length-bias", where, message, "compare ranking accuracy with it")]


def audit_sets(
    sets: Mapping[str, Dataset], near: bool = True, *, numbers: Mapping[str, Sequence[int]] | None = None
) -> list[Finding]:
    """Hold a training set against each evaluation set: the same pairs, the same prompts, nearly the same prompts.

    Args:
        sets: Normalised sets by name, the training set first.
        near: Also look for near duplicates (`near_duplicates`), the longest part of the work.
        numbers: Row numbers of each set; by default the column `alignkit_row`, or they count from 1.
    """
    rows = {name: numbering(dataset) if numbers is None else numbers[name] for name, dataset in sets.items()}
    train, *held = sets
    if not held:
        return []
    found: list[Finding] = []
    pairs = digests(sets[train])
    for name in held:
        where = f"{train} against {name}"
        if _is_text(sets[train]) != _is_text(sets[name]):
            kinds = [f"{n} holds {'plain text' if _is_text(sets[n]) else 'chat messages'}" for n in (train, name)]
            remedy = "bring both to one kind: a metric of the other kind says little about training"
            found.append(Finding("warning", "mixed-formats", where, ", ".join(kinds), remedy))
            continue
        others = digests(sets[name])
        leak = leaked(pairs, others, names=(train, name), numbers=(rows[train], rows[name]))
        found += [leak] if leak is not None else []
        if leak is not None and leak.level == "warning":
            continue
        same = among(others.prompt, pairs.prompt)
        told = same & ~among(others.either_way, pairs.either_way)
        if told.any():
            known = among(pairs.prompt, others.prompt[told])
            message = (
                f"{told.sum()} of {len(told)} pairs of {name}{shown(at(told, rows[name]))} have a prompt of {train}"
            )
            remedy = "split by prompt, as data.holdout does"
            found.append(Finding("warning", "same-prompts", where, message, remedy, at(known, rows[train])))
        if near:
            found += _near(
                sets[train], sets[name], where, (train, name), (rows[train], rows[name]), np.flatnonzero(~same)
            )
    return found


def _near(
    train: Dataset,
    held: Dataset,
    where: str,
    names: tuple[str, str],
    rows: tuple[Sequence[int], Sequence[int]],
    left: np.ndarray,
) -> list[Finding]:
    queries = [text for part in slices(held.select(left)) for text in map(prompt_text, part["prompt"])]
    matches = near_duplicates(queries, (text for part in slices(train) for text in map(prompt_text, part["prompt"])))
    if not matches:
        return []
    there = [int(rows[1][int(left[match.query])]) for match in matches]
    worst = max(matches, key=lambda match: match.jaccard)
    message = (
        f"{len(matches)} of {len(held)} pairs of {names[1]}{shown(there)} have nearly a prompt of {names[0]}; nearest: row "
        f"{there[matches.index(worst)]} and row {rows[0][worst.other]} there, which share {worst.jaccard:.0%} of their 5-grams"
    )
    known = tuple(sorted({int(rows[0][match.other]) for match in matches}))
    return [
        Finding("warning", "near-duplicate-prompts", where, message, "keep variants of one prompt on one side", known)
    ]


def prompt_text(prompt: Any) -> str:
    """A prompt as one text, without the system's messages, which whole sets have in common."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message["role"] not in SYSTEM_ROLES)


def _is_text(dataset: Dataset) -> bool:
    return isinstance(dataset[0]["prompt"], str)
