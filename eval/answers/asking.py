"""Asks every policy and their reference for answers to the same prompts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from align.data.prompts import prompt_of, template_of
from align.errors import RunError
from align.sampling.ask import Answers, Asking, ask
from eval.statistics.names import REF
from eval.subjects import Subject, title

from .table import Sampled

OF_ROWS = ("chosen", "rejected", "completion", "preference")
"""Columns that say nothing of a prompt."""


def asked_rows(sets: Mapping[str, Dataset], most: int) -> list[dict[str, Any]]:
    """The first different prompts of evaluation sets, with the further columns of their rows.

    Raises:
        RunError: If there are fewer than two.
    """
    unique: dict[str, dict[str, Any]] = {}
    for dataset in sets.values():
        for row in dataset.to_list():
            prompt = prompt_of(row)
            key = json.dumps([prompt, template_of(prompt)])
            unique.setdefault(key, {name: value for name, value in row.items() if name not in OF_ROWS})
    rows = list(unique.values())[:most]
    if len(rows) < 2:
        raise RunError(f"an interval needs at least 2 different prompts, got {len(rows)}; see eval.generate.prompts")
    return rows


def ask_all(subjects: Sequence[Subject], asking: Asking) -> Answers:
    """The answers of the reference, which the subjects share, and of each of them."""
    first = subjects[0]
    answers = {REF: ask(first.tokenizer, first.reference, asking, REF, "the reference")}
    for subject in subjects:
        answers[subject.name] = ask(subject.tokenizer, subject.policy, asking, subject.name, title(subject, first))
    return answers


def sampled_texts(rows: list[dict[str, Any]], answers: Answers) -> Sampled:
    """The texts of answers, the policies before the reference."""
    ordered = [*(who for who in answers if who != REF), REF]
    return Sampled(rows, {who: [[answer.text for answer in row] for row in answers[who]] for who in ordered})
