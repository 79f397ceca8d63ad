"""Holds what an evaluation found, before it is shown or written."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from eval.fronts.front import Front
from eval.pairs.calibration import BesideCalibrated
from eval.pairs.labels import LabelScores
from eval.pairs.likelihood import CompletionScores
from eval.pairs.ranking import PairScores
from eval.statistics.comparisons import Compared, Comparison
from eval.statistics.intervals import Estimate
from eval.verdicts import Judged


class BestRound(NamedTuple):
    """The best of several rounds or checkpoints by one measure, chosen on one half of the prompts and measured on the other."""

    name: str
    above_first: Estimate | None
    """How far it is above what training began with, on the other half; None where that is the best."""
    candidates: int
    chosen_on: int
    """Prompts."""
    measured_on: int
    share: float
    """How often prompts drawn with replacement choose the same."""


@dataclass
class Report:
    """Everything the report shows: estimates by name, per-item values for the pictures, and how it was made."""

    name: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    pairs: dict[str, dict[str, PairScores]] = field(default_factory=dict)
    """Evaluation set, then subject name, to scores."""
    completions: dict[str, dict[str, CompletionScores]] = field(default_factory=dict)
    """Evaluation set of completions, then subject name, to scores."""
    labels: dict[str, dict[str, LabelScores]] = field(default_factory=dict)
    """Evaluation set of labelled completions, then subject name, to scores."""
    prompts: dict[str, list[str]] = field(default_factory=dict)
    """By evaluation set, the prompt of each pair or completion, as `prompt_labels` says it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """By evaluation set, how many of its rows were not scored, and why."""
    margins: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Likewise to implicit-reward margins in nats, of shape (pairs,); only of methods that have an implicit reward."""
    compared: dict[str, Compared] = field(default_factory=dict)
    """By measure, every pair of those that were compared, until `settle` says what is sure of them."""
    calibration: dict[str, dict[str, BesideCalibrated]] = field(default_factory=dict)
    """By evaluation set and policy: the plain calibration error beside that of a calibrated model."""
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    """By measure, every pair of those that were compared: one family, whose claims hold at once."""
    judged: dict[str, Judged] = field(default_factory=dict)
    """By the name of a judge."""
    best_of_k: dict[str, dict[int, Estimate]] = field(default_factory=dict)
    """By who chooses and whose answers are drawn: mean gold reward of the answer chosen among k."""
    front: Front | None = None
    """The policies' objectives, of runs that were compared."""
    rounds: list[str] = field(default_factory=list)
    """Of a run with rounds: the names of its policies, the earliest first."""
    checkpoints: list[str] = field(default_factory=list)
    """Likewise of the checkpoints of one run."""
    best_round: dict[str, BestRound] = field(default_factory=dict)
    """By measure."""
    details: dict[str, Any] = field(default_factory=dict)
    """By measure, what is no estimate: which instructions were broken, who is on the front."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Per prompt: the prompt, both answers, and their gold rewards where there is one."""
    measured: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """By policy or "ref", then by quantity, its values for each prompt of `answers`: what the estimates are made from."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def series(self) -> list[str]:
        """The policies that one training gave one after the other; empty where the report is of no such."""
        return self.rounds or self.checkpoints
