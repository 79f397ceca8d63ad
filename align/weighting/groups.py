"""Finds groups of annotators who want different things, and the policy that serves the worst-off group best."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

RIDGE, NEWTON = 0.01, 12
FEW_PAIRS, SURE = 10, 0.95


class Groups(NamedTuple):
    """Annotators in groups, each with rewards of its own."""

    rewards: Float[np.ndarray, "groups items"]
    """Of each group, known up to a constant."""
    shares: Float[np.ndarray, "annotators groups"]
    """The probability of each annotator to be of each group; 0 or 1 after hard EM."""
    log_likelihood: float
    """In nats, of all choices."""
    doubt: str | None
    """Why the groups should not be believed; None if nothing speaks against them."""

    @property
    def members(self) -> Int[np.ndarray, " annotators"]:
        """The likeliest group of each annotator."""
        return self.shares.argmax(axis=1)


def bradley_terry(
    winner: Int[np.ndarray, " pairs"],
    loser: Int[np.ndarray, " pairs"],
    weights: Float[np.ndarray, " pairs"],
    items: int,
) -> Float[np.ndarray, " items"]:
    """Rewards that make weighted choices likeliest: Newton on -Σ w log σ(r_winner - r_loser) + ridge/2 |r|²."""
    x = np.eye(items)[winner] - np.eye(items)[loser]
    r = np.zeros(items)
    for _ in range(NEWTON):
        p = np.exp(-np.logaddexp(0, -(x @ r)))
        curvature = x.T @ (x * (weights * p * (1 - p))[:, None]) + RIDGE * np.eye(items)
        r = r + np.linalg.solve(curvature, x.T @ (weights * (1 - p)) - RIDGE * r)
    return r


def find_groups(
    annotator: Int[np.ndarray, " pairs"],
    winner: Int[np.ndarray, " pairs"],
    loser: Int[np.ndarray, " pairs"],
    groups: int,
    *,
    rng: np.random.Generator,
    soft: bool = False,
    restarts: int = 8,
    rounds: int = 30,
) -> Groups:
    """EM over annotators, not over pairs: each belongs to one of K groups, each group has a Bradley-Terry model.

    All choices of one annotator tell of the group together. The likeliest of several random starts is taken.

    Source: Chakraborty et al. 2024, "MaxMin-RLHF" (arXiv:2402.08925), algorithm 2 (hard); the soft form weighs each
    annotator's choices by the probability of the group, with the groups' sizes.

    Args:
        annotator: Of each pair, from 0; every number up to the greatest occurs.
        winner: Items that were preferred, from 0.
        loser: Items that were not.
        groups: K, at least 2.
        rng: Of the starts.
        soft: Probabilities instead of the likeliest group.
        restarts: How many starts.
        rounds: The most steps of each.

    Raises:
        ValueError: If there are fewer annotators than groups, or arrays of different lengths.
    """
    counts = np.bincount(annotator)
    people, items = len(counts), int(max(winner.max(), loser.max())) + 1
    if not 2 <= groups <= people or not len(annotator) == len(winner) == len(loser):
        raise ValueError(f"groups: from 2 to the number of annotators ({people}), and a winner and a loser a pair")
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(restarts):
        shares = np.eye(groups)[rng.integers(0, groups, people)]
        if soft:
            shares = rng.dirichlet(np.ones(groups), people)
        value, rewards = -np.inf, np.zeros((groups, items))
        for _ in range(rounds):
            rewards = np.array([bradley_terry(winner, loser, shares[annotator, g], items) for g in range(groups)])
            each = -np.logaddexp(0, -(rewards[:, winner] - rewards[:, loser]))
            total = np.stack([np.bincount(annotator, weights=e, minlength=people) for e in each], axis=1)
            if soft:
                joint = total + np.log(shares.mean(axis=0) + 1e-12)
                value = float(np.logaddexp.reduce(joint, axis=1).sum())
                new = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
            else:
                value, new = float(total.max(axis=1).sum()), np.eye(groups)[total.argmax(axis=1)]
            settled = np.abs(new - shares).max() < 1e-6
            shares = new
            if settled:
                break
        if best is None or value > best[0]:
            best = value, shares, rewards
    assert best is not None
    value, shares, rewards = best
    return Groups(rewards, shares, value, _doubt(counts, rewards, annotator, winner, loser))


def _doubt(
    counts: Int[np.ndarray, " annotators"],
    rewards: Float[np.ndarray, "groups items"],
    annotator: Int[np.ndarray, " pairs"],
    winner: Int[np.ndarray, " pairs"],
    loser: Int[np.ndarray, " pairs"],
) -> str | None:
    """Few pairs an annotator, or annotators whose choices fit several groups."""
    pairs = float(np.median(counts))
    if pairs < FEW_PAIRS:
        return f"{pairs:g} pairs an annotator, at the median; below {FEW_PAIRS} groups are not found"
    each = -np.logaddexp(0, -(rewards[:, winner] - rewards[:, loser]))
    total = np.stack([np.bincount(annotator, weights=e) for e in each], axis=1)
    sure = np.exp(total.max(axis=1) - np.logaddexp.reduce(total, axis=1)).mean()
    if sure < SURE:
        return f"annotators are of their group with probability {sure:.2f} on average; ask each of them more"
    return None


def adjusted_rand(first: Int[np.ndarray, " people"], second: Int[np.ndarray, " people"]) -> float:
    """Agreement of two groupings, corrected for chance: 1 if they are the same up to names, 0 on average by chance.

    Source: Hubert and Arabie 1985, "Comparing partitions".
    """
    table = np.array([[np.sum((first == i) & (second == j)) for j in np.unique(second)] for i in np.unique(first)])
    both, rows, columns = (float((n * (n - 1) / 2).sum()) for n in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = rows * columns / (len(first) * (len(first) - 1) / 2)
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


class MaxMin(NamedTuple):
    """The policy that serves the worst-off group best."""

    weights: Float[np.ndarray, " groups"]
    """The dual solution: what each group's reward counts."""
    policy: Float[np.ndarray, " items"]
    utilities: Float[np.ndarray, " groups"]
    primal: float
    """The least utility, minus beta times the KL from the reference."""
    dual: float
    """beta log Σ ref exp(Σ weights · rewards / beta); the same at the optimum."""


def max_min_policy(
    rewards: Float[np.ndarray, "groups items"],
    ref: Float[np.ndarray, " items"],
    beta: float,
    *,
    steps: int = 60,
) -> MaxMin:
    """The policy of max over π of min_u E_π r_u - beta KL(π | ref) on an enumerable space, by its dual over the simplex of groups.

    The dual is convex, and its slope by a weight is that group's utility. Two groups at a time trade weight by bisection
    until nobody gains, which for two groups is exact.

    Source: Chakraborty et al. 2024, "MaxMin-RLHF" (arXiv:2402.08925).

    Args:
        rewards: Of each group, on one scale for all.
        ref: Probabilities of the reference, positive.
        beta: Of the KL, positive.
        steps: Of each bisection.
    """
    count = len(rewards)
    weights = np.full(count, 1 / count)

    def policy(w: Float[np.ndarray, " groups"]) -> Float[np.ndarray, " items"]:
        z = np.log(ref) + w @ rewards / beta
        return np.exp(z - np.logaddexp.reduce(z))

    for _ in range(1 if count == 2 else 50):
        for i in range(count):
            for j in range(i):
                both = weights[i] + weights[j]
                low, high = 0.0, both
                for _ in range(steps):
                    middle = (low + high) / 2
                    weights[i], weights[j] = middle, both - middle
                    slope = (rewards[i] - rewards[j]) @ policy(weights)
                    low, high = (middle, high) if slope < 0 else (low, middle)
    p = policy(weights)
    utilities = rewards @ p
    primal = float(utilities.min() - beta * (p @ np.log(p / ref)))
    dual = float(beta * np.logaddexp.reduce(np.log(ref) + weights @ rewards / beta))
    return MaxMin(weights, p, utilities, primal, dual)
