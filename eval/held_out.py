"""Scores held-out data under policies and their reference: pairs are ranked, labels told apart, completions have a likelihood."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from align.data.prompts import prompt_of
from align.data.rows.truncation import fits
from align.errors import RunError
from eval.pairs.calibration import beside_calibrated, margin_confidence
from eval.pairs.implicit_reward import implicit_margin, pair_estimates
from eval.pairs.labels import LabelScores, label_estimates
from eval.pairs.likelihood import CompletionScores, likelihood, per_token
from eval.pairs.logps import (
    Sequences,
    completion_ids,
    completion_logps,
    pair_ids,
    reference_store,
    shortest_context,
    stored,
)
from eval.pairs.ranking import PairScores, ranking_estimates, rankings
from eval.report.results import Report
from eval.statistics.comparisons import compared, prompt_labels
from eval.statistics.groups import group_shares
from eval.statistics.intervals import Estimate, mean_estimate, rng_of_report
from eval.statistics.names import REF

from .subjects import Subject

logger = logging.getLogger(__name__)

SHARES = "preference"
"""The data's column of rater shares, read where the method reads it."""


def rank_pairs(report: Report, name: str, pairs: Dataset, subjects: list[Subject]) -> Dataset:
    """Score the pairs that fit the models' context; returns these."""
    first = subjects[0]
    pairs, both = _within_context(report, name, pairs, subjects)
    prompts = prompt_labels(pairs["prompt"])
    tokens = [pair[side] for side in (0, 1) for pair in both]
    lengths = np.array([len(completion) for _, completion in tokens], dtype=float)

    # The reference once for all policies, from the store where it has the values.
    ref, half = _under_reference(first, f"{name}: pairs", tokens), len(pairs)
    shares = np.array(pairs[SHARES], dtype=float) if SHARES in pairs.column_names else None
    report.pairs[name], report.margins[name], report.prompts[name] = {}, {}, prompts.tolist()
    # Each policy against it.
    for subject in subjects:
        policy = _summed(first, subject.policy, f"{name}: pairs under {subject.name}", tokens)
        scores = PairScores(policy[:half], policy[half:], ref[:half], ref[half:], lengths[:half], lengths[half:])
        margin = None if subject.other_reference else implicit_margin(subject.recipe, scores)
        report.pairs[name][subject.name] = scores
        if margin is not None:
            report.margins[name][subject.name] = margin
            beside = beside_calibrated(margin_confidence(margin), prompts, rng=rng_of_report())
            report.calibration.setdefault(name, {})[subject.name] = beside
        found = ranking_estimates(scores, prompts=prompts)
        found |= pair_estimates(subject.recipe, scores, margin, shares, prompts=prompts)
        if subject.recipe.eval.group in pairs.column_names:
            of, right = np.array(pairs[subject.recipe.eval.group]), rankings(scores)["implicit_reward"]
            by_group = _by_group(report, f"{name}: {subject.name}", right, of, prompts)
            found |= {f"ranking_accuracy/{key}": value for key, value in by_group.items()}
        prefix = name if subject is first else f"{subject.name}/{name}"
        report.estimates |= {f"{prefix}/{key}": value for key, value in found.items()}
    # The policies against each other.
    for other in subjects[1:]:
        own, theirs = (report.pairs[name][who].chosen for who in (first.name, other.name))
        kept = mean_estimate(own - theirs, prompts)
        report.estimates[f"{name}/logps_chosen_minus_{other.name}"] = kept
    return pairs


def _by_group(report: Report, what: str, right: np.ndarray, of: np.ndarray, prompts: np.ndarray) -> dict[str, Estimate]:
    """Accuracies by group; where one has too few prompts, none, and the report says which."""
    try:
        return group_shares(right, of, prompts)
    except ValueError as error:
        report.left_out[f"{what}: groups"] = str(error)
        return {}


def score_completions(
    report: Report, name: str, rows: Dataset, subjects: list[Subject], *, compare: bool = False
) -> None:
    """Negative log-likelihood of held-out completions that fit the models' context, in nats per token.

    Args:
        report: Gets the estimates, and what they are made from.
        name: Of the evaluation set.
        rows: Of prompt and completion.
        subjects: Whose likelihood, the policy in question first.
        compare: Whether everybody is compared with everybody.

    Raises:
        RunError: If fewer than two prompts have a completion that fits.
    """
    _, prompts, found = _completions(report, name, rows, subjects, "completions")
    report.completions[name] = found
    report.estimates |= likelihood(f"{name}/nll", found, prompts)
    if compare:
        values = {who: per_token(-scores.policy, scores.tokens, prompts) for who, scores in found.items()}
        one = next(iter(found.values()))
        values[REF] = per_token(-one.ref, one.tokens, prompts)
        report.compared[f"{name}/nll"] = compared(values, np.unique(prompts))


def score_labels(report: Report, name: str, rows: Dataset, subjects: list[Subject]) -> None:
    """How well each policy tells desirable answers from others, on labelled completions that fit the models' context.

    Args:
        report: Gets the estimates, and what they are made from.
        name: Of the evaluation set.
        rows: Of prompt, completion and label.
        subjects: The policy in question first.

    Raises:
        RunError: If fewer than two prompts have a completion that fits.
    """
    kept, prompts, found = _completions(report, name, rows, subjects, "labels")
    desirable = np.array(kept["label"], dtype=bool)
    report.labels[name] = {who: LabelScores(*scores, desirable) for who, scores in found.items()}
    for who, scores in report.labels[name].items():
        prefix = name if who == subjects[0].name else f"{who}/{name}"
        report.estimates |= {f"{prefix}/{key}": value for key, value in label_estimates(scores, prompts).items()}


def _completions(
    report: Report, name: str, rows: Dataset, subjects: list[Subject], kind: str
) -> tuple[Dataset, np.ndarray, dict[str, CompletionScores]]:
    """The rows that fit, their prompts, and what each policy and the reference give them."""
    first = subjects[0]
    tokens = [completion_ids(first.tokenizer, prompt_of(row), row["completion"]) for row in rows.to_list()]
    kept = _fitting(report, name, rows, [[one] for one in tokens], subjects, kind)
    rows, tokens = rows.select(kept), [tokens[i] for i in kept]
    prompts, lengths = prompt_labels(rows["prompt"]), np.array([len(ids) for _, ids in tokens], dtype=float)
    report.prompts[name] = prompts.tolist()
    ref = _under_reference(first, f"{name}: {kind}", tokens)  # once for all policies, each against it
    found: dict[str, CompletionScores] = {}
    for subject in subjects:
        policy = _summed(first, subject.policy, f"{name}: {kind} under {subject.name}", tokens)
        found[subject.name] = CompletionScores(policy, ref, lengths)
    return rows, prompts, found


def _summed(first: Subject, use: Any, desc: str, sequences: Sequences) -> np.ndarray:
    """Summed log-probabilities under a model, in nats. Shape (sequences,)."""
    size = first.recipe.eval.batch_size
    with use() as model:
        rows = completion_logps(model, sequences, pad_token_id=first.pad_token_id, batch_size=size, desc=desc)
    return np.array([float(row.double().sum()) for row in rows])


def _under_reference(first: Subject, what: str, sequences: Sequences) -> np.ndarray:
    """The same under the reference, from the store where it has the values."""
    desc = f"{what} under the reference"
    return stored(reference_store(first), sequences, lambda missing: _summed(first, first.reference, desc, missing))


def _within_context(
    report: Report, name: str, pairs: Dataset, subjects: list[Subject]
) -> tuple[Dataset, list[Sequences]]:
    """The pairs whose answers every model can read whole, and their tokens; notes in the report how many are left out."""
    tokenizer = subjects[0].tokenizer
    both = [pair_ids(tokenizer, prompt_of(row), row["chosen"], row["rejected"]) for row in pairs.to_list()]
    kept = _fitting(report, name, pairs, both, subjects, "pairs")
    return pairs.select(kept), [both[i] for i in kept]


def _fitting(
    report: Report, name: str, rows: Dataset, sequences: Sequence[Sequences], subjects: list[Subject], what: str
) -> list[int]:
    """Which rows have only sequences that every model can read whole; the report notes how many are left out.

    Training's `max_length` says nothing here: an answer cut by it is another answer than the one that was written.
    """
    context = shortest_context(subjects)
    kept = [i for i, row in enumerate(sequences) if all(fits(*sequence, context) for sequence in row)]
    if len(kept) < len(sequences):
        told = (
            f"{len(sequences) - len(kept)} of {len(sequences)} {what} left out: longer than the model's context of "
            f"{context} tokens"
        )
        check_enough(f"{name}: {told}", rows.select(kept), what)
        logger.warning("%s: %s", name, told)
        report.left_out[name] = told
    return kept


def check_enough(where: str, rows: Dataset, what: str = "pairs") -> None:
    """Raise RunError unless there are rows of two prompts, without which no figure has an interval."""
    if len(rows) < 2:
        raise RunError(f"{where}: an interval needs at least 2 {what}, got {len(rows)}; see data.eval and eval.pairs")
    if len(set(prompt_labels(rows["prompt"]).tolist())) < 2:
        raise RunError(
            f"{where}: an interval needs {what} of at least 2 different prompts, got {len(rows)} {what} of one; see "
            "data.eval and eval.pairs"
        )
