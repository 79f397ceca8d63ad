"""Measures answers in tokens: lengths, and divergences of the policy from the reference."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from align.models.use import Use
from align.recipe.loading import Generate
from align.sampling.ask import Answers
from align.sampling.generate import Answer
from eval.pairs.logps import completion_logps
from eval.statistics.intervals import Estimate
from eval.statistics.names import REF
from eval.statistics.sides import COUNTS, sided_estimates
from eval.subjects import Subject, title

from .divergence import divergence_estimates

CALLED: dict[str, Callable[[Answer], int]] = {
    "calls": lambda answer: answer.turns.calls if answer.turns else 0,
    "failed_calls": lambda answer: answer.turns.failed if answer.turns else 0,
}
"""What is counted of answers that may call tools."""


class OfTokens(NamedTuple):
    """What tokens say of answers."""

    estimates: dict[str, dict[str, Estimate]]
    """By policy."""
    items: dict[str, dict[str, list[Any]]]
    """What they are made from, by policy or "ref", quantity and prompt: `tokens` and `cut_off` of each answer; of the first
    answers `log_ratio`, of the reference's `ref_log_ratio`, and the negative log-probability `surprise`, in nats."""


def token_estimates(subjects: Sequence[Subject], answers: Answers, settings: Generate) -> OfTokens:
    """By policy: lengths in tokens and, unless answers are greedy, divergences from the reference, of first answers.

    Of answers that call tools only the tokens that the policy wrote count, here and there: what tools return has the same
    probability under both, which a ratio does not see. Calls, and calls that failed, are counted, too.

    None of revised answers, whose probability is a sum over all drafts, and of answers to a prompt that says what is
    preferred, which the reference does not see.

    Of rounds also `kl_before`, the KL from the round before.
    """
    first = subjects[0]

    def scored(use: Use, who: str, rows: list[list[Answer]]) -> Any:
        with use() as model:
            found = completion_logps(
                model, [(row[0].prompt_ids, row[0].completion_ids) for row in rows], pad_token_id=first.pad_token_id,
                batch_size=first.recipe.eval.batch_size, temperature=settings.temperature, desc=f"answers under {who}",
            )  # fmt: skip
        return [logps[row[0].own] for logps, row in zip(found, rows, strict=True)]

    ref = answers[REF]
    sampled = settings.temperature > 0 and not settings.revisions and not settings.prefer
    ref_under_ref = scored(first.reference, "the reference", ref) if sampled else None
    found, items, own_logps = {}, {REF: _counts(ref)}, {}
    if ref_under_ref is not None:
        items[REF]["surprise"] = [-total for total in _totals(ref_under_ref)]
    for subject in subjects:
        who, own = title(subject, first), answers[subject.name]
        lengths = {subject.name: _lengths(own), REF: _lengths(ref)}
        found[subject.name] = sided_estimates("length_tokens", lengths, bounds=(0.0, float(settings.max_new_tokens)))
        prompts = np.repeat(np.arange(len(own)), [len(row) for row in own])
        cut = {subject.name: _cut_off(own), REF: _cut_off(ref)}
        found[subject.name] |= sided_estimates("cut_off", cut, prompts, shares=True)
        for name in CALLED if ref[0][0].turns is not None else ():
            sides = {subject.name: _called(name, own), REF: _called(name, ref)}
            found[subject.name] |= sided_estimates(name, sides, bounds=COUNTS)
        items[subject.name] = _counts(own)
        if ref_under_ref is not None:
            own_logps[subject.name] = scored(subject.policy, who, own)
            of_own = own_logps[subject.name], scored(first.reference, "the reference", own)
            of_ref = scored(subject.policy, who, ref), ref_under_ref
            found[subject.name] |= divergence_estimates(of_own, of_ref)
            totals = [_totals(rows) for rows in (*of_own, *of_ref)]
            items[subject.name] |= {
                "log_ratio": [p - r for p, r in zip(*totals[:2], strict=True)],
                "ref_log_ratio": [p - r for p, r in zip(*totals[2:], strict=True)],
                "surprise": [-total for total in totals[0]],
            }
    for subject in subjects if ref_under_ref is not None else ():
        if subject.before == REF:
            found[subject.name]["kl_before"] = found[subject.name]["kl"]
        elif subject.before:
            before = next(other for other in subjects if other.name == subject.before)
            own, theirs = answers[subject.name], answers[before.name]
            found[subject.name]["kl_before"] = divergence_estimates(
                (own_logps[subject.name], scored(before.policy, before.name, own)),
                (scored(subject.policy, subject.name, theirs), own_logps[before.name]),
            )["kl"]
    return OfTokens(found, items)


def _counts(answers: list[list[Answer]]) -> dict[str, list[Any]]:
    return {
        "tokens": [[len(answer.own_ids) for answer in row] for row in answers],
        "cut_off": [[int(not answer.finished) for answer in row] for row in answers],
        **(
            {name: [[CALLED[name](a) for a in row] for row in answers] for name in CALLED}
            if answers[0][0].turns
            else {}
        ),
    }


def _totals(rows: Any) -> list[float]:
    """Log-probability of each answer, in nats."""
    return [float(row.double().sum()) for row in rows]


def _cut_off(answers: list[list[Answer]]) -> np.ndarray:
    """1 for each answer that reached its greatest length without an end."""
    return np.array([float(not answer.finished) for row in answers for answer in row])


def _called(name: str, answers: list[list[Answer]]) -> np.ndarray:
    return np.array([np.mean([CALLED[name](answer) for answer in row]) for row in answers])


def _lengths(answers: list[list[Answer]]) -> np.ndarray:
    return np.array([np.mean([len(answer.own_ids) for answer in row]) for row in answers])
