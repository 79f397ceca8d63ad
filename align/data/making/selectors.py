"""Chooses which completions of one prompt become pairs, from their rewards alone.

| selector | chosen | rejected | source |
|---|---|---|---|
| `best_worst` | the best of all n | the worst of all n | common practice |
| `best_sigma` | the best of all n | the nearest to mean - 2 standard deviations | arXiv:2502.16825 |
| `best_worst_of` | the best of all n | the worst of k drawn from the n | the rule of thumb drawn from arXiv:2502.16825 |
| `margin` | any of at least a minimum reward | any that is a minimum gap below it | DNO, arXiv:2404.03715 |
| `verified` | any that is correct | any that is wrong | IRPO, arXiv:2404.19733 |
| `best` | the best of all n, alone | none | rejection sampling, best of n |
| `accepted` | any that a draw accepts, alone | none | rejection sampling, RSO, arXiv:2309.06657 |
| `all_pairs` | the better of any two | the other of the two | CoPG, arXiv:2406.19185 |

`best_sigma` and `best_worst_of` are not the same rule: of Gaussian rewards the worst of 5 is on average at
mean - 1.16 standard deviations, and it takes about 29 completions for the worst of them to reach mean - 2. Nor is
`best_sigma` another rule than `best_worst` where n is small: no reward of n is further than sqrt(n - 1) standard
deviations from their mean, so up to n = 5 both select the same.

Rewards are in any unit, the higher the better. One that is None, NaN or infinite is no reward, and its completion is left
out as if it had not been sampled. Among equal rewards the earlier completion comes first. The two rewards of a pair
differ, except in `all_pairs`. `best` and `accepted` make no pairs but rows for supervised training: also where all are equal,
or else what is learnt from would have another law.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import numpy as np

from align.data.rows.scored import Reward

ROUNDING = 1e-9
"""By how much a gap may fall short of the minimum, relative to it: 0.3 - 0.1 is less than 0.2 in floating point."""


class Choice(NamedTuple):
    """A pair, as positions in the list of completions."""

    chosen: int
    rejected: int
    weight: float | None = None


class NoPair(ValueError):
    """Why the completions of a prompt yield no pair."""


def best_worst(rewards: Sequence[Reward]) -> list[Choice]:
    """The best completion against the worst.

    Raises:
        NoPair: If fewer than two completions have a reward, or all have the same. So do the other selectors.
    """
    scored = _different(rewards)
    return [Choice(_best(scored), min(scored, key=scored.__getitem__))]


def best(rewards: Sequence[Reward]) -> list[Choice]:
    """The best completion with itself, for whoever takes the chosen alone.

    Raises:
        NoPair: If none has a reward.
    """
    scored = {index: float(reward) for index, reward in enumerate(rewards) if has_reward(reward)}
    if not scored:
        raise NoPair("no completion has a reward")
    return [Choice(_best(scored), _best(scored))]


def accepted(
    rewards: Sequence[Reward], rng: np.random.Generator, *, beta: float | int = 0.5, most_reward: float | int = 1.0
) -> list[Choice]:
    """Each completion with probability exp((reward - most_reward) / beta), with itself, for whoever takes the chosen alone.

    Of answers sampled from π those accepted follow π e^(reward / beta) / Z, the optimum of the reward under a KL of weight
    beta, whatever their number. The maximum of the answers at hand in the place of `most_reward` gives another law.

    Args:
        rewards: One for each completion.
        rng: Draws.
        beta: 0.5 in the paper.
        most_reward: The greatest that a reward can be.

    Raises:
        NoPair: If none is accepted.
        ValueError: If a reward is greater than `most_reward`, or `beta` is not positive.
    """
    if not beta > 0:
        raise ValueError(f"accepted: beta must be positive, got {beta}")
    drawn = rng.random(len(rewards)).tolist()
    taken = []
    for index, (reward, draw) in enumerate(zip(rewards, drawn, strict=True)):
        if not has_reward(reward):
            continue
        if reward > most_reward:
            raise ValueError(f"accepted: a reward of {reward:g} is greater than most_reward={most_reward:g}; raise it")
        if draw < math.exp((reward - most_reward) / beta):
            taken.append(Choice(index, index))
    if not taken:
        raise NoPair("no completion is accepted")
    return taken


def best_sigma(rewards: Sequence[Reward], *, sigmas: float | int = -2.0) -> list[Choice]:
    """The best completion against the one whose reward is nearest to the mean plus `sigmas` standard deviations.

    The standard deviation is that of the fitted Gaussian, over n and not n - 1. The rejected is never as good as the
    chosen; of two that are equally near the worse is taken.

    Args:
        rewards: One for each completion.
        sigmas: The anchor, in standard deviations from the mean; -2 in the paper, whose seven anchors are the extremes
            and -2 ... 2.
    """
    scored = _different(rewards)
    _, exponent = math.frexp(max(map(abs, scored.values())))
    scaled = {index: math.ldexp(reward, -exponent) for index, reward in scored.items()}  # squares cannot overflow
    values = np.array(list(scaled.values()))
    anchor = float(values.mean() + sigmas * values.std())
    best = _best(scored)
    below = [index for index in scored if scored[index] < scored[best]]
    return [Choice(best, min(below, key=lambda index: (abs(scaled[index] - anchor), scored[index])))]


def best_worst_of(rewards: Sequence[Reward], rng: np.random.Generator, *, k: int = 5) -> list[Choice]:
    """The best of all completions against the worst of k that are drawn without replacement, the best among them or not.

    Raises:
        NoPair: Also if fewer than k completions have a reward, or the k drawn are all as good as the best.
    """
    scored = _different(rewards)
    if len(scored) < k:
        raise NoPair(f"fewer than {k} completions have a reward")
    drawn = sorted(rng.choice(list(scored), size=k, replace=False).tolist())
    best, worst = _best(scored), min(drawn, key=scored.__getitem__)
    if scored[worst] == scored[best]:
        raise NoPair(f"the {k} drawn completions are all as good as the best")
    return [Choice(best, worst)]


def margin(rewards: Sequence[Reward], *, min_gap: float | int = 2.0, min_reward: float | int = 5.0) -> list[Choice]:
    """Every two completions that are clearly apart, of which the better is good.

    The defaults are DNO's, for a judge that gives 0 to 6 points. The paper asks for a gap of 1 only where the winner is
    the student's own; who wrote what is not known here.

    Args:
        rewards: One for each completion.
        min_gap: What the rewards must at least differ by; equal rewards are no pair even at 0.
        min_reward: What the chosen must at least have.

    Raises:
        NoPair: Also if no two completions are such a pair.
    """
    scored = _different(rewards)
    good = [index for index in scored if scored[index] >= min_reward]
    if not good:
        raise NoPair(f"no completion has a reward of at least {min_reward:g}")
    least = min_gap * (1 - ROUNDING)
    choices = [Choice(i, j) for i in good for j in scored if scored[i] > scored[j] and scored[i] - scored[j] >= least]
    if not choices:
        raise NoPair(f"no two rewards differ by at least {min_gap:g}")
    return choices


def verified(rewards: Sequence[Reward], rng: np.random.Generator, *, most: int = 10) -> list[Choice]:
    """Correct answers against wrong ones: up to `most` different pairs, drawn from all of them.

    Args:
        rewards: 1 (or True) for a correct answer, 0 (or False) for a wrong one.
        rng: Draws if there are more pairs than `most`.
        most: The paper's K.

    Raises:
        NoPair: If there are only correct or only wrong answers.
        ValueError: If a reward is neither 0 nor 1.
    """
    scored = _scored(rewards)
    if any(reward not in (0.0, 1.0) for reward in scored.values()):
        raise ValueError("verified: rewards must be 1 for correct and 0 for wrong; use another selector, or a checker")
    correct, wrong = ([index for index in scored if scored[index] == value] for value in (1.0, 0.0))
    if not correct or not wrong:
        raise NoPair("no answer is wrong" if correct else "no answer is correct")
    choices = [Choice(i, j) for i in correct for j in wrong]
    if len(choices) <= most:
        return choices
    return [choices[index] for index in sorted(rng.choice(len(choices), size=most, replace=False).tolist())]


def all_pairs(rewards: Sequence[Reward]) -> list[Choice]:
    """Every two of the k completions, each pair with the weight 1/(k - 1).

    With m the regularised reward of a completion, the sum of weight * (m_i - m_j)^2 over the pairs is CoPG's loss of k
    samples, sum over i > j of (m_i - m_j)^2 / (k - 1). Two completions of the same reward are a pair too, as the sum
    needs them, the earlier one chosen: fit for a loss that is symmetric in its sides, as CoPG is, and for no other.

    Raises:
        NoPair: If fewer than two completions have a reward.
    """
    scored = _scored(rewards)
    weight = 1.0 / (len(scored) - 1)
    order = list(scored)
    return [
        Choice(i, j, weight) if scored[i] >= scored[j] else Choice(j, i, weight)
        for position, i in enumerate(order)
        for j in order[position + 1 :]
    ]


def has_reward(reward: Reward) -> TypeGuard[float | int]:
    """Whether it is a finite number."""
    return reward is not None and math.isfinite(reward)


def _scored(rewards: Sequence[Reward]) -> dict[int, float]:
    """The rewards there are, by position."""
    scored = {index: float(reward) for index, reward in enumerate(rewards) if has_reward(reward)}
    if len(scored) < 2:
        raise NoPair("fewer than two completions have a reward")
    return scored


def _different(rewards: Sequence[Reward]) -> dict[int, float]:
    scored = _scored(rewards)
    if len(set(scored.values())) == 1:
        raise NoPair("all rewards are equal")
    return scored


def _best(scored: dict[int, float]) -> int:
    return max(scored, key=scored.__getitem__)
