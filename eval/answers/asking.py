"""Asks every policy and their reference for answers to the same prompts."""

from collections.abc import Sequence
from typing import Any

from align.sampling.ask import Answers, Asking, ask
from eval.statistics.names import REF
from eval.subjects import Subject, title

from .table import Sampled


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
