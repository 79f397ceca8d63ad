"""Makes of the rounds of a run the policies of one report: each beside the others, the round before it and the first."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import RunError
from align.going_on import taken_round
from align.recipe.loading import load_recipe
from align.rounds.best import choose
from align.rounds.ledger import FILE, Ledger
from align.rounds.plan import TRAINED, Place
from align.runs.contents import RECIPE_FILE
from align.sampling.policy import policy_of, reference_of
from eval.report.results import BestRound, Report
from eval.statistics.comparisons import Compared, difference_estimate
from eval.statistics.intervals import claimed
from eval.statistics.names import REF, REFERENCE, says_who_is_better

from .identity import identity_of_policy
from .subjects import Subject

ROUND = "round-"
FIRST = f"{ROUND}0"


def is_rounds(name: str) -> bool:
    """Whether a name is the directory of a run with rounds."""
    return (Path(name) / FILE).is_file()


def trained_rounds(run: Path) -> list[str]:
    """The run directories of the rounds that are trained, the newest first; those that the recipe asks for.

    Raises:
        RunError: If a round was trained and its adapter or model is gone: what is said of the next is said against it.
    """
    recipe: Any = load_recipe(run / RECIPE_FILE, anywhere=True)
    known = {number for number, stage in Ledger(run, mend=False).done if stage == TRAINED}
    places = [Place(run, number) for number in sorted(known, reverse=True) if number <= recipe.rounds.count]
    gone = [place for place in places if not place.weights.is_dir()]
    if gone:
        raise RunError(
            f"{gone[-1].trained}: neither adapter/ nor model/ there, although round {gone[-1].number} was trained; restore it, or "
            f"have it made again by `alignkit train` with --resume auto"
        )
    return [str(place.trained) for place in places]


def as_rounds(subjects: Sequence[Subject], run: Path) -> list[Subject]:
    """Subjects named by their rounds, each with the one before it; last, where it is not the reference, what they began with."""
    for subject in subjects:
        subject.name = Path(subject.path).parent.name
    every = [*subjects]
    beginning = policy_of(str(run / RECIPE_FILE))
    first = subjects[0]
    if beginning != reference_of(load_recipe(run / RECIPE_FILE, anywhere=True)):
        path = beginning.adapter or str(beginning.settings.model_name_or_path)
        every.append(
            Subject(
                FIRST, first.recipe, first.tokenizer, beginning.load(), first.reference, first.ref_digest, path,
                identity_of_policy(path),
            )
        )  # fmt: skip
    for subject, before in zip(every, [*every[1:], None], strict=True):
        subject.before = before.name if before is not None else "" if subject.name == FIRST else REF
    return every


def add_rounds(report: Report, subjects: Sequence[Subject], run: Path) -> None:
    """The order of the rounds, and the best of them by each measure that compares them, into a report that is settled."""
    report.rounds = [subject.name for subject in reversed(subjects)]
    start = FIRST if FIRST in report.rounds else REF
    add_best(report, start, [FIRST, *(who for who in report.rounds if who != FIRST)])
    taken = taken_round(run)
    if taken is not None:
        report.settings["adapter_is_of"] = f"{ROUND}{taken}"


def add_best(report: Report, start: str, candidates: Sequence[str]) -> None:
    """The best of the policies that one training gave, by each measure that compares them, into a report that is settled.

    Args:
        report: Gets it.
        start: What training began with, by its name in the comparisons.
        candidates: What it is called here, then the others, the earliest first.
    """
    for measure, found in report.compared.items():
        if says_who_is_better(measure):
            best = _best(report, found, start, candidates)
            if best is not None:
                report.best_round[measure] = best


def _best(report: Report, found: Compared, start: str, candidates: Sequence[str]) -> BestRound | None:
    """The best by how far it is above what training began with, on prompts that chose nothing."""
    first = candidates[0]
    above: dict[str, Any] = {first: np.zeros(len(found.labels))}
    for column, pair in enumerate(found.pairs):
        one, other = (REF if who == REFERENCE else who for who in pair)
        if start in (one, other):
            who, sign = (other, -1.0) if one == start else (one, 1.0)
            above[who] = sign * found.differences[:, column]
    if set(above) != set(candidates):
        return None
    labels, index = np.unique(found.labels, return_inverse=True)
    prompts = [  # a label is the prompt as a text, or its place among the answers
        json.loads(one) if isinstance(one, str) else report.answers[one]["prompt"] for one in labels.tolist()
    ]
    by_prompt = {who: np.bincount(index, above[who]) / np.bincount(index) for who in candidates}
    chosen = choose(by_prompt, prompts)
    if chosen is None:
        return None
    other = np.isin(index, chosen.reported_on)
    estimate = (
        None
        if chosen.best == first
        else difference_estimate(above[chosen.best][other], found.labels[other], shares=found.shares, span=found.span)
    )
    return BestRound(
        chosen.best, claimed(estimate), len(candidates), len(chosen.chosen_on), len(chosen.reported_on), chosen.share
    )
