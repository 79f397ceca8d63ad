"""What texts tell without a model: lengths, diversity, gold reward, best of k, comparisons; linear in the prompts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from align.rewards import Reward

from .best_of import best_of_k
from .diversity import words_of
from .measures import comparisons, diversity_estimates, rng_of_report
from .results import Report
from .sampled import REF, Sampled
from .stats import BCA_RESAMPLES, RESAMPLES, Estimate, mean_estimate, win_scores
from .winrate import longer_wins

DIVERSITY_OF = 1000
"""Diversity is that of the first so many answers: it depends on how many there are, and costs twenty times a pass."""
MANY = 2000
"""Beyond so many prompts the percentile bootstrap makes do with fewer draws, at which its ends are as good."""

Values = Float[np.ndarray, " prompts"]
ByPolicy = dict[str, dict[str, Estimate]]
"""Estimates by policy."""


def mean_of(values: Values) -> Estimate:
    """The mean over prompts with the report's interval."""
    draws = RESAMPLES if len(values) <= MANY else BCA_RESAMPLES
    return mean_estimate(values, rng=rng_of_report(), resamples=draws)


def paired(name: str, policy: Values, ref: Values) -> dict[str, Estimate]:
    """Both sides' means and the mean of their differences, prompt by prompt."""
    values = {"policy": policy, "ref": ref, "difference": policy - ref}
    return {f"{name}/{key}": mean_of(row) for key, row in values.items()}


def per_prompt(values: Sequence[float] | np.ndarray, samples: int) -> Values:
    """Mean over the answers to each prompt, from those of all prompts in a row."""
    return np.asarray(values, dtype=float).reshape(-1, samples).mean(axis=1)


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
            for key, e in paired(f"length_{unit}", values, ref[unit]).items()
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


def gold_rewards(sampled: Sampled, gold: Reward) -> dict[str, Float[np.ndarray, "prompts samples"]]:
    """The gold reward of every answer."""
    return {who: np.array(gold(sampled.flat(who)), dtype=float).reshape(-1, sampled.samples) for who in sampled.answers}


def gold_found(sampled: Sampled, rewards: Mapping[str, np.ndarray]) -> ByPolicy:
    """Gold reward of both sides, how often the policy's is larger, and how often its answer is the longer one."""
    found: ByPolicy = {}
    ref = rewards[REF].ravel()
    characters = {who: np.array([float(len(text)) for text in sampled.flat(who)]) for who in sampled.answers}
    for who in sampled.policies:
        own = rewards[who].ravel()
        found[who] = paired("gold_reward", per_prompt(own, sampled.samples), per_prompt(ref, sampled.samples))
        wins = win_scores(own, ref)
        found[who]["gold_reward/win_rate"] = mean_of(per_prompt(wins, sampled.samples))
        clusters = np.repeat(np.arange(len(sampled.rows)), sampled.samples)
        baseline = longer_wins(wins, characters[who], characters[REF], rng=rng_of_report(), clusters=clusters)
        found[who]["gold_reward/longer_wins"] = baseline["longer_wins/win_rate"]
    return found


def best_of_curves(
    gold: Mapping[str, np.ndarray], judge: Mapping[str, np.ndarray], name: str
) -> dict[str, dict[int, Estimate]]:
    """Gold reward of the answer that a judge likes best among k, for k = 1, 2, 4, ... and all samples.

    Args:
        gold: By policy or "ref", shape (prompts, samples).
        judge: Likewise, what the answers are chosen by.
        name: Of the judge.
    """
    samples = next(iter(gold.values())).shape[1]
    ks = sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples})
    return {f"{name}: {who}": best_of_k(gold[who], judge[who], ks, rng=rng_of_report()) for who in gold}


def add(report: Report, found: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Estimates by policy to the report: the first policy's under their names, the others' behind "POLICY/".

    What is the reference's own is there once.
    """
    for index, (who, estimates) in enumerate(found.items()):
        if index == 0:
            report.estimates |= estimates
        else:
            report.estimates |= {f"{who}/{key}": e for key, e in estimates.items() if not key.endswith("/ref")}


def merged(*parts: Mapping[str, Mapping[str, Estimate]]) -> ByPolicy:
    """Several measures of the same policies as one."""
    return {who: {key: e for part in parts for key, e in part[who].items()} for who in parts[0]}


def shown_answers(sampled: Sampled, rewards: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Per prompt the first answers of everybody, with their gold rewards if there are any."""
    first, *others = sampled.policies
    rows = []
    for index, prompt in enumerate(row["prompt"] for row in sampled.rows):
        row: dict[str, Any] = {"prompt": prompt}
        for side, who in (("policy", first), ("ref", REF)):
            row[side] = sampled.answers[who][index][0]
        for side, who in (("policy", first), ("ref", REF)):
            row |= {f"{side}_reward": float(rewards[who][index, 0])} if rewards else {}
        if others:
            row["others"] = {
                who: {"text": sampled.answers[who][index][0]}
                | ({"reward": float(rewards[who][index, 0])} if rewards else {})
                for who in others
            }
        if sampled.samples > 1:
            row["samples"] = {who: answers[index] for who, answers in sampled.answers.items()}
        rows.append(row)
    return rows


def measure_texts(report: Report, sampled: Sampled, found: ByPolicy, gold: Reward | None) -> dict[str, np.ndarray]:
    """Everything that answers as texts tell, after what was found before; returns the gold rewards by policy and "ref"."""
    found = merged(found, diversity_found(sampled))
    rewards = {} if gold is None else gold_rewards(sampled, gold)
    add(report, merged(found, gold_found(sampled, rewards)) if rewards else found)
    report.answers = shown_answers(sampled, rewards)
    if len(sampled.policies) > 1 and rewards:
        scores = {who: per_prompt(rewards[who], sampled.samples) for who in sampled.policies}
        report.comparisons["gold_reward"] = comparisons("gold_reward", scores, [row["prompt"] for row in sampled.rows])
    if sampled.samples > 1 and rewards:
        report.best_of_k |= best_of_curves(rewards, rewards, "gold reward")
    return rewards
