"""Turns what a judge or rewards say of two answers into a preference, and tells which pairs have none."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.data.rows.scored import text_of
from align.findings import printable
from align.judges.protocol import judge_all
from align.judges.scorers import Scorer, of_margins
from align.losses.online import win_rates
from align.weighting.ranks import undominated


class Verdicts(NamedTuple):
    """Of each pair of answers. Where there is no verdict, the preference is one half and the scores are 0."""

    preference: Float[Tensor, " pairs"]
    """P(first ≻ second)."""
    scores: Float[Tensor, "pairs 2"]
    """Rewards, or the share of the two answers that each is preferred to."""
    given: Bool[Tensor, " pairs"]
    """Whether there is a verdict."""


class Wins:
    """A scorer as a reward function with TRL's signature: how probably each answer of a pair beats the other.

    Answers stand beside each other, two to a prompt. Equal answers are not shown to the scorer: they tie. A pair on which
    it fails has no reward, and why is counted.

    Args:
        scorer: Any of `align.judges`.
    """

    __name__ = "judge"

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.reasons: Counter[str] = Counter()

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One number, or None, for each completion."""
        pairs = [(text_of(one), text_of(other)) for one, other in zip(completions[::2], completions[1::2], strict=True)]
        wins: list[float | None] = [0.5] * len(pairs)
        asked = [index for index, (one, other) in enumerate(pairs) if one != other]
        of_rows = {n: v for n, v in columns.items() if isinstance(v, list) and n != "completion_ids"}
        if asked:
            judged = judge_all(
                self.scorer,
                [prompts[2 * index] for index in asked],
                [pairs[index] for index in asked],
                [{name: values[2 * index] for name, values in of_rows.items()} for index in asked],
            )
            self.reasons.update(printable(failure.error, 200) for failure in judged.failures)
            for index, matrix in zip(asked, judged.preferences, strict=True):
                wins[index] = None if matrix[0, 1] != matrix[0, 1] else float(matrix[0, 1])
        return [value for win in wins for value in (win, None if win is None else 1 - win)]


def of_judge(wins: Float[Tensor, "answers 1"]) -> Verdicts:
    """Verdicts of what `Wins` gave."""
    first = wins[::2, 0]
    given = ~first.isnan()
    preference = first.where(given, 0.5)
    return Verdicts(preference, win_rates(preference) * given[:, None], given)


def of_rewards(
    rewards: Float[Tensor, "answers functions"],
    weights: Float[Tensor, "*pairs functions"],
    *,
    temperature: float,
    by: str = "sum",
) -> Verdicts:
    """Verdicts of rewards, NaN where a function gave None.

    A function that applies to neither answer is left out of the sum. One that gives a number to one of them alone compares
    nothing, and leaves the pair without a verdict.

    Args:
        rewards: Two rows, beside each other, for each pair.
        weights: Of the functions; for each pair its own, if they have a row for each.
        temperature: In units of the weighted sum; 0 prefers the larger for certain.
        by: "dominance" goes by the Pareto order in place of the sum; see `of_dominance`.
    """
    if by == "dominance":
        return of_dominance(rewards)
    table, both, given = _pairs(rewards)
    scores = (table * weights.to(table).unsqueeze(-2)).masked_fill(~(both & given[:, None])[:, None], 0.0).sum(dim=2)
    margins = (scores[:, 0] - scores[:, 1]).cpu().double().numpy()
    return Verdicts(torch.from_numpy(of_margins(margins, temperature)).to(scores), scores, given)


def of_dominance(rewards: Float[Tensor, "answers functions"]) -> Verdicts:
    """Verdicts by the Pareto order: 1 where the first answer is worse in no reward and better in one, one half without order.

    What compares nothing is as in `of_rewards`. Scores are as of a judge.

    Args:
        rewards: Two rows, beside each other, for each pair.
    """
    table, both, given = _pairs(rewards)
    points = table.masked_fill(~both[:, None], 0.0)
    preference = undominated(points, torch.ones_like(points[..., 0], dtype=torch.bool))[:, 0].where(given, 0.5)
    return Verdicts(preference, win_rates(preference) * given[:, None], given)


def _pairs(
    rewards: Float[Tensor, "answers functions"],
) -> tuple[Float[Tensor, "pairs 2 functions"], Bool[Tensor, "pairs functions"], Bool[Tensor, " pairs"]]:
    """Rewards by pair, which functions apply to both answers, and which pairs they compare."""
    table = rewards.unflatten(0, (-1, 2))
    there = ~table.isnan()
    both = there.all(dim=1)
    return table, both, both.any(dim=1) & (there[:, 0] == there[:, 1]).all(dim=1)
