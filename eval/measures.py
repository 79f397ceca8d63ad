"""What a report measures beyond rankings and rewards: calibration, divergence both ways, diversity, comparisons of runs."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from align.configs import FDPOConfig
from align.configs.pairwise import PairwiseConfig
from align.errors import RunError
from align.losses.objectives import OBJECTIVES, PairBatch
from align.losses.preference import Pair, f_dpo_loss, implicit_rewards
from align.methods import METHODS
from align.recipe.loading import Recipe

from .calibration import calibration_estimates
from .comparisons import Comparison, compare_runs
from .divergence import forward_kl, jensen_shannon, sampled_kl
from .diversity import distinct, predictive_entropy, self_bleu
from .ranking import PairScores, alignment_estimates
from .stats import Estimate, mean_estimate

BOOTSTRAP_SEED = 0
CALIBRATION_RESAMPLES = 200  # a temperature is fitted to each; 10,000 pairs then take seconds
LEFT_OUT_GROUPS = 20
GROUP, GROUPS = 8, 16  # self-BLEU: so many answers a group, and groups at most

TokenLogps = Sequence[Float[Tensor, " _tokens"]]


def rng_of_report() -> np.random.Generator:
    """A fresh generator for each estimate, so that no estimate depends on which others were made."""
    return np.random.default_rng(BOOTSTRAP_SEED)


def check_writes_answers(name: str, recipe: Recipe) -> None:
    """Raise RunError if what a recipe trains is a model that judges answers and writes none."""
    if METHODS[recipe.method].model == "preference":
        raise RunError(
            f"{name}: method {recipe.method!r} trains a model that judges answers and writes none; load it with "
            "align.models.preference_model.load_preference_model(FOLDER), FOLDER being the run's adapter/ or model/, and call "
            "its prefer(prompt, answers)"
        )


def check_measurable(name: str, recipe: Recipe) -> None:
    """Whether what a recipe trains can be evaluated.

    Raises:
        RunError: If it is a model that judges answers, or has no pairs to rank and nothing asks for answers.
    """
    check_writes_answers(name, recipe)
    rows = METHODS[recipe.method].rows
    if rows != "pairs" and recipe.eval.generate is None:
        raise RunError(
            f"{name}: method {recipe.method!r} learns from {rows}, so there are no pairs to rank; to evaluate its "
            "answers set eval.generate={prompts: 128}, and eval.gold_reward to score them"
        )


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
    if isinstance(config, PairwiseConfig):
        makers = (OBJECTIVES[name].rewards for name in config.objective)
        rewards = next(make for make in makers if make is not None)(batch, config.beta)
    elif isinstance(config, FDPOConfig):
        f = config.generator()
        rewards = f_dpo_loss(batch.log_ratio, beta=config.beta, f=f, beta_scaling=config.beta_scaling).rewards
    else:
        rewards = implicit_rewards(batch.log_ratio, beta=config.beta)
    return (rewards.chosen - rewards.rejected).numpy()


def pair_estimates(
    recipe: Recipe,
    scores: PairScores,
    margin: Float[np.ndarray, " pairs"] | None,
    shares: Float[np.ndarray, " pairs"] | None,
) -> dict[str, Estimate]:
    """Calibration of the implicit reward and, where the share of raters is known, what DPO could reach at best.

    Args:
        recipe: Of the run that was scored.
        scores: Of its policy and reference.
        margin: From `implicit_margin`; without it there is no calibration and no β.
        shares: Share of raters that preferred the chosen answer, shape (pairs,).
    """
    if margin is None:
        return {}
    found = calibration_estimates(margin, rng=rng_of_report(), resamples=CALIBRATION_RESAMPLES)
    estimates = {f"calibration/{name}": estimate for name, estimate in found.items()}
    if shares is not None:
        estimates |= alignment_estimates(scores, shares, beta=recipe.train.beta, rng=rng_of_report())
    return estimates


def divergence_estimates(
    policy_answers: tuple[TokenLogps, TokenLogps], ref_answers: tuple[TokenLogps, TokenLogps]
) -> dict[str, Estimate]:
    """How far the policy moved, from answers of both sides, and how spread out each side's answers are; in nats.

    `kl` and `entropy/policy` are expectations over answers of the policy, `forward_kl` and `entropy/ref` over those of
    the reference, `jensen_shannon` over both. Answers cut at their greatest length count as they are.

    Args:
        policy_answers: Log-probabilities of the policy's answers under the policy, and under the reference.
        ref_answers: The same of the reference's answers, to the same prompts in the same order.
    """
    from_policy, from_ref = (
        np.array([float((p.double() - r.double()).sum()) for p, r in zip(*side, strict=True)])
        for side in (policy_answers, ref_answers)
    )
    return {
        "kl": sampled_kl(*policy_answers, rng=rng_of_report()),
        "forward_kl": forward_kl(from_ref, rng=rng_of_report()),
        "jensen_shannon": jensen_shannon(from_policy, from_ref, rng=rng_of_report()),
        "entropy/policy": predictive_entropy(policy_answers[0], rng=rng_of_report()),
        "entropy/ref": predictive_entropy(ref_answers[1], rng=rng_of_report()),
    }


def diversity_estimates(texts: Sequence[str]) -> dict[str, Estimate]:
    """Distinct-1 and distinct-2 of a set of answers and, where sacrebleu is installed, self-BLEU; see `diversity`."""
    estimates = {f"distinct_{n}": left_out(texts, lambda some, n=n: distinct(some, n=n)) for n in (1, 2)}
    groups = bleu_groups(texts)
    if find_spec("sacrebleu") is not None and len(groups) > 1:
        estimates["self_bleu"] = mean_estimate(np.array([self_bleu(group) for group in groups]), rng=rng_of_report())
    return estimates


def bleu_groups(texts: Sequence[str]) -> list[Sequence[str]]:
    """The first answers in groups of eight, sixteen groups at most.

    Self-BLEU falls with fewer texts and costs their square: groups of one size make it comparable between runs, bounded
    in cost, and give an interval over groups.
    """
    whole = min(len(texts) // GROUP, GROUPS)
    return [texts[GROUP * i : GROUP * (i + 1)] for i in range(whole)]


def left_out(texts: Sequence[str], statistic: Callable[[Sequence[str]], float]) -> Estimate:
    """A statistic in [0, 1] of a set of texts, with a normal interval from leaving out one of 20 groups at a time.

    A bootstrap would repeat texts, which by itself lowers the share of distinct n-grams.

    Source: the jackknife of Quenouille and Tukey, over groups; Efron and Tibshirani 1993, section 11.5.

    Raises:
        ValueError: If there are fewer than two texts.
    """
    groups = min(LEFT_OUT_GROUPS, len(texts))
    if groups < 2:
        raise ValueError(f"a confidence interval needs at least 2 texts, got {len(texts)}")
    values = np.array(
        [statistic([text for i, text in enumerate(texts) if i % groups != group]) for group in range(groups)]
    )
    spread = math.sqrt((groups - 1) / groups * float(((values - values.mean()) ** 2).sum()))
    value, half = statistic(texts), NormalDist().inv_cdf(0.975) * spread
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(texts))


def comparisons(
    name: str, scores: Mapping[str, Float[np.ndarray, " items"]], prompts: Sequence[Any]
) -> list[Comparison]:
    """Every pair of runs on one measure, corrected for how many pairs there are; items of one prompt belong together.

    Args:
        name: What was measured, for the message.
        scores: By run, one value per item.
        prompts: The prompt of each item.

    Raises:
        RunError: If all items have one prompt.
    """
    labels = np.array([json.dumps(prompt) for prompt in prompts])
    if len(set(labels.tolist())) < 2:
        raise RunError(f"{name}: comparing runs needs at least 2 different prompts, got {len(set(labels.tolist()))}")
    return compare_runs(scores, rng=rng_of_report(), clusters=labels)
