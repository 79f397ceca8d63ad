"""Measures texts without a model: lengths, diversity, gold reward, best of k, comparisons; linear in the prompts."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from align.rewards import Reward
from eval.answers.table import Sampled
from eval.statistics.intervals import UNBOUNDED, win_scores
from eval.statistics.names import REF
from eval.statistics.sides import COUNTS, ByPolicy, Values, per_prompt, sided_estimates
from eval.statistics.win_rate import longer_wins, win_rate

from .diversity import diversity_estimates, words_of

DIVERSITY_OF = 1000
"""Diversity is that of the first so many answers: it depends on how many there are, and costs twenty times a pass."""


def text_lengths(sampled: Sampled, who: str) -> dict[str, Values]:
    """Mean length of one side's answers to each prompt, in characters and in words."""
    units: dict[str, Callable[[str], int]] = {"characters": len, "words": lambda text: len(words_of(text))}
    texts = sampled.flat(who)
    return {unit: per_prompt([float(count(text)) for text in texts], sampled.samples) for unit, count in units.items()}


def length_estimates(sampled: Sampled) -> ByPolicy:
    """Lengths in characters and in words, for answers whose tokens are not known."""
    ref = text_lengths(sampled, REF)
    return {
        who: {
            key: e
            for unit, values in text_lengths(sampled, who).items()
            for key, e in sided_estimates(f"length_{unit}", {who: values, REF: ref[unit]}, bounds=COUNTS).items()
        }
        for who in sampled.policies
    }


def diversity_found(sampled: Sampled) -> ByPolicy:
    """Diversity of each policy's first answers and of the reference's; see `DIVERSITY_OF`."""
    of = {who: diversity_estimates(sampled.first(who)[:DIVERSITY_OF]) for who in sampled.answers}
    return {
        who: {f"{key}/{side}": e for side, name in (("policy", who), ("ref", REF)) for key, e in of[name].items()}
        for who in sampled.policies
    }


MEASURES: tuple[Callable[[Sampled], ByPolicy], ...] = (diversity_found,)
"""What is measured of all texts, whatever the recipe asks for."""


def gold_rewards(sampled: Sampled, gold: Reward) -> dict[str, Float[np.ndarray, "prompts samples"]]:
    """The gold reward of every answer."""
    return {who: np.array(gold(sampled.flat(who)), dtype=float).reshape(-1, sampled.samples) for who in sampled.answers}


def gold_found(
    sampled: Sampled, rewards: Mapping[str, np.ndarray], bounds: tuple[float, float] = UNBOUNDED
) -> ByPolicy:
    """Gold reward of both sides, how often the policy's is larger, and how often its answer is the longer one.

    Args:
        sampled: Whose answers.
        rewards: Of each answer, by policy and "ref".
        bounds: The least and the greatest that a reward can be.
    """
    found: ByPolicy = {}
    ref = rewards[REF].ravel()
    characters = {who: np.array([float(len(text)) for text in sampled.flat(who)]) for who in sampled.answers}
    for who in sampled.policies:
        own = rewards[who].ravel()
        sides = {who: per_prompt(own, sampled.samples), REF: per_prompt(ref, sampled.samples)}
        found[who] = sided_estimates("gold_reward", sides, bounds=bounds)
        wins = win_scores(own, ref)
        clusters = np.repeat(np.arange(len(sampled.rows)), sampled.samples)
        rate = win_rate(wins, clusters=clusters)
        found[who]["gold_reward/win_rate"] = rate.win_rate
        baseline = longer_wins(wins, characters[who], characters[REF], clusters=clusters)
        found[who]["gold_reward/longer_wins"] = baseline["longer_wins/win_rate"]
    return found
