"""Collects one judge's verdicts on all answers: win rates, everybody against everybody, ratings, what failed.

The k-th answer of each is judged against the k-th answers of the others; prompts are the independent items.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from align.judges.protocol import Judge, Judgements, judge_all
from align.judges.scorers import Scorer
from eval.answers.table import Sampled
from eval.statistics.comparisons import Compared
from eval.statistics.cycles import find_cycles
from eval.statistics.intervals import Estimate, rng_of_report
from eval.statistics.length_control import instruction_difficulty, length_controlled_win_rate
from eval.statistics.names import REF, REFERENCE
from eval.statistics.ratings import Games, bradley_terry, exploitability, games_of, nash_mixture
from eval.statistics.win_rate import PositionBias, WinRate, longer_wins, mean_preferences, position_bias, win_rate

TAKEN = ("prompt", "prompts", "answers", "completion", "completions", "completion_ids")
DIFFICULTY = "instruction_difficulty"
"""Column of the prompts: log-odds of a win that an instruction adds for any model, as a leaderboard's joint fit gives."""
PRIOR = 1.0
"""Drawn games added to each pair of players where somebody never lost, so that ratings are finite."""


@dataclass
class Judged:
    """What one judge made of all answers; estimates by the name of a policy, against the reference."""

    kind: str
    players: list[str]
    """Everybody who was judged: policies, the one in question first, then the reference."""
    win_rates: dict[str, WinRate] = field(default_factory=dict)
    length_controlled: dict[str, Estimate] = field(default_factory=dict)
    difficulty_from: dict[str, str] = field(default_factory=dict)
    """Where the difficulty of each instruction is from, by which a length-controlled win rate allows; empty if it does not."""
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
    one_scale_p: float | None = None
    """Of "one strength for each player explains all win rates"; of three players or more."""
    circles: list[list[str]] = field(default_factory=list)
    """Three players each, of whom the first beats the second, the second the third and the third the first, beyond doubt."""
    exploitability: float | None = None
    """Where there are circles, of the player that is hardest to beat: how far its strongest opponent's win rate is above
    one half."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Where there are circles: the mixture of players that none beats."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Questions without a verdict: prompt, sample, who was shown first and second, and why."""
    notes: list[str] = field(default_factory=list)
    """What could not be estimated, and why."""


class Verdicts(NamedTuple):
    """What a judge said on all games, and to which prompt each belongs."""

    judgements: Judgements
    """Its first axis: answers to the prompts, those to one prompt together."""
    prompts: Int[np.ndarray, " games"]
    players: list[str]
    """Names in `Sampled.answers`: policies, then "ref"."""

    def wins(self, who: str, other: str) -> Float[np.ndarray, " games"]:
        """Probability that one beats another, both orders averaged; NaN where that is not known."""
        return self.judgements.preferences[:, self.players.index(who), self.players.index(other)]


def columns_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a judge is told of a prompt besides: the row's columns whose names no scorer uses itself."""
    return {key: value for key, value in row.items() if key not in TAKEN}


def ask_judge(scorer: Scorer, sampled: Sampled) -> Verdicts:
    """Verdicts on everybody's answers to every prompt, in both orders."""
    players = [*sampled.policies, REF]
    games = [(index, k) for index in range(len(sampled.rows)) for k in range(sampled.samples)]
    columns = [columns_of(row) for row in sampled.rows]
    judgements = judge_all(
        scorer,
        [sampled.rows[index]["prompt"] for index, _ in games],
        [[sampled.answers[who][index][k] for who in players] for index, k in games],
        [columns[index] for index, _ in games],
    )
    return Verdicts(judgements, np.array([index for index, _ in games]), players)


def judged_by(kind: str, scorer: Scorer, sampled: Sampled, *, reference: str = REFERENCE) -> tuple[Judged, Verdicts]:
    """Everything that can be estimated from one judge's verdicts; what cannot is noted with its reason.

    Args:
        kind: Of the judge.
        scorer: The judge.
        sampled: Whose answers.
        reference: What the reference is called.
    """
    verdicts = ask_judge(scorer, sampled)
    names = {who: who for who in sampled.policies} | {REF: reference}
    judged = Judged(kind, [names[who] for who in verdicts.players])
    judged.failures = [
        {
            "prompt": int(verdicts.prompts[failure.prompt]),
            "sample": failure.prompt % sampled.samples,
            "first": judged.players[failure.first],
            "second": judged.players[failure.second],
            "error": failure.error,
        }
        for failure in verdicts.judgements.failures
    ]
    others = ~np.eye(len(judged.players), dtype=bool)
    if np.isnan(verdicts.judgements.preferences[:, others]).all():
        judged.notes.append("not a single verdict, so nothing can be estimated")
        return judged, verdicts
    for who in sampled.policies:
        estimate_or_note(
            judged, f"{who}: no win rate", lambda who=who: _against_reference(judged, verdicts, sampled, who)
        )
    if isinstance(scorer, Judge):
        estimate_or_note(judged, "no position bias", lambda: _position(judged, verdicts, sampled))
    if len(judged.players) > 2:
        estimate_or_note(judged, "no preferences between all", lambda: _tournament(judged, verdicts))
        estimate_or_note(judged, "no ratings", lambda: _ratings(judged, verdicts))
    return judged, verdicts


def estimate_or_note(judged: Judged, what: str, estimate: Callable[[], None]) -> None:
    """Makes an estimate; if it cannot be made, `judged` notes what is missing and why."""
    try:
        estimate()
    except ValueError as error:
        judged.notes.append(f"{what}: {error}")


def _against_reference(judged: Judged, verdicts: Verdicts, sampled: Sampled, who: str) -> None:
    wins, clusters = verdicts.wins(who, REF), verdicts.prompts
    if np.isnan(wins).all():
        raise ValueError("not a single verdict against the reference")
    judged.win_rates[who] = win_rate(wins, clusters=clusters)
    own, ref = (np.array([float(len(text)) for text in sampled.flat(side)]) for side in (who, REF))
    baseline = longer_wins(wins, own, ref, clusters=clusters)
    judged.longer_wins[who] = baseline["longer_wins/win_rate"]
    judged.agreement[who] = baseline["longer_wins/agreement"]
    known = ~np.isnan(wins)

    def controlled() -> None:
        difficulty, judged.difficulty_from[who] = _difficulty(verdicts, sampled, who, known)
        fit = length_controlled_win_rate(
            wins[known], own[known], ref[known], difficulty=difficulty, clusters=clusters[known]
        )
        judged.length_controlled[who] = fit.win_rate

    estimate_or_note(judged, f"{who}: no length-controlled win rate", controlled)


def _difficulty(
    verdicts: Verdicts, sampled: Sampled, who: str, known: np.ndarray
) -> tuple[Float[np.ndarray, " games"] | None, str]:
    """How easy each prompt is to win, and where that is from: the prompts' own column, or the other policies' verdicts."""
    column = [row.get(DIFFICULTY) for row in sampled.rows]
    if all(isinstance(value, int | float) and np.isfinite(value) for value in column):
        given = np.array(column, dtype=float)[verdicts.prompts][known]
        return given - given.mean(), f"the column {DIFFICULTY}"
    others = [verdicts.wins(other, REF)[known] for other in sampled.policies if other != who]
    others = [np.where(np.isnan(wins), np.nanmean(wins), wins) for wins in others if not np.isnan(wins).all()]
    if not others:
        return None, ""
    return instruction_difficulty(np.stack(others)), f"the verdicts on {len(others)} other policies"


def _position(judged: Judged, verdicts: Verdicts, sampled: Sampled) -> None:
    first_answers = verdicts.judgements.orders[:: sampled.samples]
    judged.position_bias = position_bias(first_answers)


def _tournament(judged: Judged, verdicts: Verdicts) -> None:
    preferences = mean_preferences(verdicts.judgements.preferences)
    judged.preferences = preferences.tolist()
    found = find_cycles(verdicts.judgements.preferences, verdicts.prompts, rng=rng_of_report())
    judged.one_scale_p = found.one_scale_p
    judged.circles = [[judged.players[i] for i in circle] for circle in found.circles]
    if judged.circles:
        judged.exploitability = min(exploitability(preferences, row) for row in np.eye(len(preferences)))
        judged.mixture = dict(zip(judged.players, nash_mixture(preferences).tolist(), strict=True))


def _ratings(judged: Judged, verdicts: Verdicts) -> None:
    games = games_of(verdicts.judgements.preferences)
    games = Games(games.first, games.second, games.wins, verdicts.prompts[games.clusters])
    try:
        ratings = bradley_terry(games, len(judged.players))
    except ValueError as error:
        ratings = bradley_terry(games, len(judged.players), prior=PRIOR)
        judged.notes.append(f"ratings with one drawn game added to each pair of players, because: {error}")
    judged.ratings = dict(zip(judged.players, ratings, strict=True))


def head_to_head(verdicts: Verdicts, players: list[str]) -> Compared:
    """Every pair of players: share of games won less share lost.

    Only games count on which every pair has a verdict, so that all pairs are compared on the same.

    Raises:
        ValueError: If fewer than two prompts have such games.
    """
    preferences = verdicts.judgements.preferences
    whole = ~np.isnan(preferences).any(axis=(1, 2))
    preferences, clusters = preferences[whole], verdicts.prompts[whole]
    if len(set(clusters.tolist())) < 2:
        raise ValueError("fewer than 2 prompts have a verdict on every pair")
    pairs = list(combinations(range(len(players)), 2))
    differences = np.stack([2 * preferences[:, i, j] - 1 for i, j in pairs], axis=1)
    return Compared([(players[i], players[j]) for i, j in pairs], differences, clusters, shares=True, span=1.0)


def scores_of(scorer: Any, sampled: Sampled) -> dict[str, np.ndarray]:
    """The judge's own reward of every answer by policy and "ref", shape (prompts, samples).

    Raises:
        ValueError: If it fails on an answer.
    """
    return {
        who: np.array(
            [
                scorer.score(row["prompt"], answers, **columns_of(row))
                for row, answers in zip(sampled.rows, sampled.answers[who], strict=True)
            ]
        )
        for who in sampled.answers
    }
