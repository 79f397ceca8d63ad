"""Computes the implicit rewards of a run's method, and estimates from them."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from align.losses.objectives import PairBatch
from align.losses.preference import Pair
from align.methods import METHODS
from align.recipe.loading import Recipe
from eval.statistics.intervals import Estimate

from .calibration import calibration_estimates
from .ranking import Labels, PairScores, alignment_estimates


def implicit_margin(recipe: Recipe, scores: PairScores) -> Float[np.ndarray, " pairs"] | None:
    """The chosen answer's implicit reward minus the rejected one's, in nats: what the method's loss is a function of.

    β times the log-ratio, β f'(u) for f-DPO (its scaling by curvature included), and for objectives that a recipe names
    the rewards of the first that has any (length-mean, or without reference, for some).

    Args:
        recipe: Of the run that was scored.
        scores: Of its policy and reference.

    Returns:
        Shape (pairs,), or None if the method is no preference method and so has no implicit reward.
    """
    if METHODS[recipe.method].rows != "pairs":
        return None
    policy, ref, tokens = (
        Pair(*(torch.from_numpy(side.astype(float)) for side in sides))
        for sides in (scores[0:2], scores[2:4], scores[4:6])
    )
    batch = PairBatch(policy, ref, tokens, {})
    config: Any = recipe.train
    rewards = config.implicit_rewards(batch)
    return (rewards.chosen - rewards.rejected).numpy()


def pair_estimates(
    recipe: Recipe,
    scores: PairScores,
    margin: Float[np.ndarray, " pairs"] | None,
    shares: Float[np.ndarray, " pairs"] | None,
    *,
    prompts: Labels = None,
) -> dict[str, Estimate]:
    """Calibration of the implicit reward and, where the share of raters is known, what DPO could reach at best.

    Args:
        recipe: Of the run that was scored.
        scores: Of its policy and reference.
        margin: From `implicit_margin`; without it there is no calibration and no β.
        shares: Share of raters that preferred the chosen answer, shape (pairs,).
        prompts: As in `ranking_estimates`.
    """
    if margin is None:
        return {}
    found = calibration_estimates(margin, prompts)
    estimates = {f"calibration/{name}": estimate for name, estimate in found.items()}
    if shares is not None:
        beta = recipe.train.beta
        estimates |= alignment_estimates(scores, shares, beta=beta, prompts=prompts)
    return estimates
