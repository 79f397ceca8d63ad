"""What an evaluation found, before it is shown or written."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .comparisons import Comparison
from .fronts import Front
from .ranking import PairScores
from .stats import Estimate
from .winrate import PositionBias, WinRate

REFERENCE = "reference"
"""What the reference is called among those that are judged, unless it has a name."""


@dataclass
class Judged:
    """What one judge made of all answers; estimates by the name of a policy, against the reference."""

    kind: str
    players: list[str]
    """Everybody who was judged: policies, the one in question first, then the reference."""
    win_rates: dict[str, WinRate] = field(default_factory=dict)
    length_controlled: dict[str, Estimate] = field(default_factory=dict)
    longer_wins: dict[str, Estimate] = field(default_factory=dict)
    """What each policy would reach before a judge who looks at length alone."""
    agreement: dict[str, Estimate] = field(default_factory=dict)
    """How often the verdict went to the longer answer."""
    position_bias: PositionBias | None = None
    """None for judges who see no order."""
    preferences: list[list[float]] = field(default_factory=list)
    """Mean preference of the player of the row over that of the column; empty if a pair has no verdict."""
    ratings: dict[str, Estimate] = field(default_factory=dict)
    """Bradley-Terry strengths in nats by player, mean 0; of three players or more."""
    exploitability: float | None = None
    """Of the player that is hardest to beat: how far its strongest opponent's win rate is above one half."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Where every player is beaten by another: the mixture of players that none beats."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Questions without a verdict: prompt, sample, who was shown first and second, and why."""
    notes: list[str] = field(default_factory=list)
    """What could not be estimated, and why."""


@dataclass
class Report:
    """Everything the report shows: estimates by name, per-item values for the pictures, and how it was made."""

    name: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    pairs: dict[str, dict[str, PairScores]] = field(default_factory=dict)
    """Evaluation set, then subject name, to scores."""
    margins: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Likewise to implicit-reward margins in nats, of shape (pairs,); only of methods that have an implicit reward."""
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    """By measure, every pair of the runs that were compared."""
    judged: dict[str, Judged] = field(default_factory=dict)
    """By the name of a judge."""
    best_of_k: dict[str, dict[int, Estimate]] = field(default_factory=dict)
    """By who chooses and whose answers are drawn: mean gold reward of the answer chosen among k."""
    front: Front | None = None
    """The policies' objectives, of runs that were compared."""
    details: dict[str, Any] = field(default_factory=dict)
    """By measure, what is no estimate: which instructions were broken, who is on the front."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Per prompt: the prompt, both answers, and their gold rewards where there is one."""
    settings: dict[str, Any] = field(default_factory=dict)
