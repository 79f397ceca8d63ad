"""Estimates what RewardBench 2 measures of a reward or preference model, and how often a model says a cycle.

Everything is computed from margins D of a prompt's answers: D_ij > 0 says that i is preferred to j. Of a reward model they
are differences of rewards, and the figures are those of the benchmark; of a model of general preferences they are the
log-odds of its preferences, where the worst of a set of answers stands for the margin of the set.

Source: Malik et al. 2025, "RewardBench 2: Advancing Reward Model Evaluation" (arXiv:2506.01937), and its code, which the
paper's tables are from: `reroll_and_score_dataset` and `process_single_model` in `rewardbench/utils.py` of
github.com/allenai/reward-bench at commit a009692.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .intervals import Estimate, mean_estimate
from .shares import share_estimate

Margins = Float[np.ndarray, "_answers _answers"]
"""Of one prompt; prompts may differ in their number of answers."""


class OfTies(NamedTuple):
    """A question with several right answers, and one about the same with a single right one."""

    tied: Margins
    tied_chosen: int
    """How many of the first answers are right, two or more."""
    ref: Margins
    ref_chosen: int


def best_of(margins: Margins, chosen: int = 1) -> float:
    """1 if a chosen answer is preferred to all others, which of equals one of is drawn; 0 if it is not.

    RewardBench 2 has one chosen answer among four. Each of k answers that nobody is preferred to is drawn with 1/k.

    Args:
        margins: Of the answers, the chosen ones first.
        chosen: How many of the first are.
    """
    unbeaten = np.all(margins >= 0, axis=1, keepdims=True)[:, 0]
    return float(unbeaten[:chosen].sum() / unbeaten.sum()) if unbeaten.any() else 0.0


def gaps(margins: Margins, chosen: int) -> tuple[float, float]:
    """By how much the worst of the chosen answers is above the best of the others, and how far apart the chosen are."""
    return float(margins[:chosen, chosen:].min()), float(margins[:chosen, :chosen].max())


def ties_estimates(rows: Sequence[OfTies]) -> dict[str, Estimate]:
    """The benchmark's measure of ties, and its parts.

    `ref_accuracy`, `tied_accuracy`: every right answer is above every wrong one. `preferred`: and by more than the right
    answers of the tied question are apart. `preferred_hard`: so also by the lesser gap of both questions. `score` is
    0.3, 0.3, 0.2 and 0.2 of them, and 0.01 of tanh(lesser gap / distance - 1).

    Raises:
        ValueError: If there are fewer than two rows.
    """
    parts: dict[str, list[float]] = {
        name: [] for name in ("ref_accuracy", "tied_accuracy", "preferred", "preferred_hard")
    }
    scores = []
    for row in rows:
        (tied, apart), (ref, _) = gaps(row.tied, row.tied_chosen), gaps(row.ref, row.ref_chosen)
        least = min(ref, tied)
        said = (float(ref > 0), float(tied > 0), float(tied > apart), float(least > apart))
        for name, value in zip(parts, said, strict=True):
            parts[name].append(value)
        with np.errstate(divide="ignore", invalid="ignore"):
            finer = float(np.nan_to_num(np.tanh(np.float64(least) / np.float64(apart) - 1), nan=0.0))
        scores.append(float(np.dot((0.3, 0.3, 0.2, 0.2), said)) + 0.01 * finer)
    found = {"score": mean_estimate(np.array(scores), bounds=(-0.01, 1.01))}
    return found | {name: share_estimate(np.array(values)) for name, values in parts.items()}


def cycle_estimates(rows: Sequence[Margins]) -> dict[str, Estimate]:
    """How often a model agrees with answers of which each is preferred to the next one, and the last to the first.

    `cycle`: it prefers each to the next. `any_cycle`: that, or each to the one before. `edges`: the share of these
    preferences that it has; `above_a_scale`: the same less the most that any scale has, all but one of each cycle. A
    Bradley-Terry model has a scale, and so never says a cycle.

    Args:
        rows: Margins of the answers to a prompt each, in the order of the cycle; three answers or more.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    each = [np.sign(row[np.arange(len(row)), np.roll(np.arange(len(row)), -1)]) for row in rows]
    says = np.array([float((edges > 0).all()) for edges in each])
    any_way = np.array([float((edges > 0).all() or (edges < 0).all()) for edges in each])
    agreed = np.array([float((edges > 0).mean() + (edges == 0).mean() / 2) for edges in each])
    scale = np.array([1 - 1 / len(edges) for edges in each])
    return {
        "cycle": share_estimate(says),
        "any_cycle": share_estimate(any_way),
        "edges": mean_estimate(agreed, bounds=(0.0, 1.0)),
        "above_a_scale": mean_estimate(agreed - scale, bounds=(-1.0, 1.0)),
    }
