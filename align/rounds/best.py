"""Chooses the best round without believing its own estimate: on one half of the prompts, to be reported on the other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from align.data.split import prompt_position

HALF = "best round"
DRAWS = 1000


class Chosen(NamedTuple):
    """The best of several rounds."""

    best: str
    candidates: list[str]
    """The first of those that are equal is taken, which was trained least."""
    chosen_on: list[int]
    """Positions of the prompts whose scores chose; that estimate of the best is too high."""
    reported_on: list[int]
    """Positions of the others, whose estimate of the best has no part in the choice."""
    share: float
    """How often prompts drawn with replacement from those that chose choose the same."""


def choose(scores: Mapping[str, np.ndarray], prompts: Sequence[Any], *, draws: int = DRAWS) -> Chosen | None:
    """The round of the highest mean on the half of the prompts that their hashes name; None if a half has under 2 prompts.

    Args:
        scores: By round, the earliest first, one number a prompt. Shape (prompts,).
        prompts: As they are given to policies.
        draws: Of the bootstrap.
    """
    first = np.array([prompt_position([HALF, prompt]) < 0.5 for prompt in prompts])
    chosen_on, reported_on = np.flatnonzero(first), np.flatnonzero(~first)
    if min(len(chosen_on), len(reported_on)) < 2:
        return None
    names = list(scores)
    values = np.stack([scores[name][chosen_on] for name in names])
    best = int(values.mean(axis=1).argmax())
    drawn = np.random.default_rng(0).integers(len(chosen_on), size=(draws, len(chosen_on)))
    share = float((values[:, drawn].mean(axis=2).argmax(axis=0) == best).mean())
    return Chosen(names[best], names, chosen_on.tolist(), reported_on.tolist(), share)
