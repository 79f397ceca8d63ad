"""Asks every policy and their reference for answers to the same prompts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from align.data.prompts import prompt_of, template_of
from align.errors import RunError
from align.sampling.ask import Answers, Asking, ask, ask_by_revision
from align.sampling.policy import instruction_of
from align.sampling.preferred import context_for
from eval.statistics.names import REF
from eval.subjects import Subject, title

from .table import Sampled

OF_ROWS = ("chosen", "rejected", "completion", "preference")
"""Columns that say nothing of a prompt."""


def asked_rows(sets: Mapping[str, Dataset], most: int, *, whole: bool = False) -> list[dict[str, Any]]:
    """The first different prompts of evaluation sets, with the further columns of their rows.

    Args:
        sets: The evaluation sets.
        most: How many.
        whole: Whether rows of one prompt that differ otherwise are different, too, as they are to an environment of tools.

    Raises:
        RunError: If there are fewer than two.
    """
    unique: dict[str, dict[str, Any]] = {}
    for dataset in sets.values():
        for row in dataset.to_list():
            prompt = prompt_of(row)
            key = json.dumps([prompt, template_of(prompt), row if whole else None], default=str)
            unique.setdefault(key, {name: value for name, value in row.items() if name not in OF_ROWS})
    rows = list(unique.values())[:most]
    if len(rows) < 2:
        raise RunError(f"an interval needs at least 2 different prompts, got {len(rows)}; see eval.generate.prompts")
    return rows


def ask_all(subjects: Sequence[Subject], asking: Asking, prefer: Mapping[str, float] | None = None) -> list[Answers]:
    """The answers of the reference, which the subjects share, and of each of them, after 0, 1 and more revisions.

    The reference revises nothing and is not told what is preferred: its answers are the same in all.
    """
    first = subjects[0]
    ref = ask(first.tokenizer, first.reference, asking._replace(revisions=0), REF, "the reference")
    stages: list[Answers] = [{REF: ref} for _ in range(asking.revisions + 1)]
    for subject in subjects:
        told = context_for(Path(subject.path), prefer)
        own = asking._replace(instruction=instruction_of(subject.recipe), context=told)
        found = ask_by_revision(subject.tokenizer, subject.policy, own, subject.name, title(subject, first))
        for stage, answers in zip(stages, found, strict=True):
            stage[subject.name] = answers
    return stages


def sampled_texts(rows: list[dict[str, Any]], answers: Answers) -> Sampled:
    """The texts of answers, the policies before the reference."""
    ordered = [*(who for who in answers if who != REF), REF]
    turns = {who: [[answer.turns for answer in row if answer.turns] for row in answers[who]] for who in ordered}
    texts = {who: [[answer.text for answer in row] for row in answers[who]] for who in ordered}
    return Sampled(rows, texts, turns if turns[REF][0] else None)
