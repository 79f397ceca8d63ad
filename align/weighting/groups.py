"""Finds groups of annotators who want different things, and the policy that serves the worst-off group best."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

RIDGE, NEWTON = 0.01, 12
FEW_PAIRS, SURE, ALIKE = 10, 0.95, 0.5


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
    return _logistic(np.eye(items)[winner] - np.eye(items)[loser], weights, RIDGE)


def _logistic(
    x: Float[np.ndarray, "pairs features"], weights: Float[np.ndarray, " pairs"], ridge: float
) -> Float[np.ndarray, " features"]:
    """Newton on -Σ w log σ(x r) + ridge/2 |r|²."""
    r = np.zeros(x.shape[1])
    for _ in range(NEWTON):
        p = np.exp(-np.logaddexp(0, -(x @ r)))
        curvature = x.T @ (x * (weights * p * (1 - p))[:, None]) + ridge * np.eye(x.shape[1])
        r = r + np.linalg.solve(curvature, x.T @ (weights * (1 - p)) - ridge * r)
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
    x = np.eye(items)[winner] - np.eye(items)[loser]
    found = _em(annotator, x, groups, rng=rng, soft=soft, restarts=restarts, rounds=rounds, ridge=RIDGE)
    return found._replace(doubt=few_pairs(counts) or _unsure(by_annotator(annotator, found.rewards @ x.T)))


def groups_by_features(
    annotator: Int[np.ndarray, " pairs"],
    differences: Float[np.ndarray, "pairs features"],
    groups: int,
    *,
    rng: np.random.Generator,
    soft: bool = False,
    restarts: int = 8,
    rounds: int = 30,
    ridge: float = 1.0,
) -> Groups:
    """`find_groups` where rewards are linear in features, such as a language model's of texts that occur once.

    With many features each group fits its own choices, so likelihoods say little of whether groups are real. Here the doubt is of
    two halves: the pairs of each annotator are split, and both halves must give the same groups (adjusted Rand 0.5 or more).

    Args:
        annotator: As in `find_groups`.
        differences: Features of the preferred answer less those of the other, of about unit scale.
        groups: As in `find_groups`, as what follows.
        rng: Of the starts, and of the halves.
        soft: See above.
        restarts: See above.
        rounds: See above.
        ridge: Of the weights of the features.

    Raises:
        ValueError: As in `find_groups`.
    """
    counts = np.bincount(annotator)
    if not 2 <= groups <= len(counts) or len(annotator) != len(differences):
        raise ValueError(f"groups: from 2 to the number of annotators ({len(counts)}), and a difference a pair")

    def em(part: Int[np.ndarray, " part"] | slice) -> Groups:
        return _em(
            annotator[part], differences[part], groups, rng=rng, soft=soft, restarts=restarts, rounds=rounds, ridge=ridge
        )  # fmt: skip

    found, doubt = em(slice(None)), few_pairs(counts)
    if doubt is None:
        order = rng.permutation(len(annotator))
        order = order[np.argsort(annotator[order], kind="stable")]
        alike = adjusted_rand(em(order[::2]).members, em(order[1::2]).members)
        if alike < ALIKE:
            doubt = f"two halves of the pairs give other groups (adjusted Rand {alike:.2f}); ask each annotator more"
    return found._replace(doubt=doubt)


def _em(
    annotator: Int[np.ndarray, " pairs"],
    x: Float[np.ndarray, "pairs features"],
    groups: int,
    *,
    rng: np.random.Generator,
    soft: bool,
    restarts: int,
    rounds: int,
    ridge: float,
) -> Groups:
    """The likeliest of several starts, without a doubt."""
    people = int(annotator.max()) + 1
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(restarts):
        shares = np.eye(groups)[rng.integers(0, groups, people)]
        if soft:
            shares = rng.dirichlet(np.ones(groups), people)
        value, rewards = -np.inf, np.zeros((groups, x.shape[1]))
        for _ in range(rounds):
            rewards = np.array([_logistic(x, shares[annotator, g], ridge) for g in range(groups)])
            total = by_annotator(annotator, rewards @ x.T)
            value, new = (posterior if soft else likeliest)(total, shares)
            settled = np.abs(new - shares).max() < 1e-6
            shares = new
            if settled:
                break
        if best is None or value > best[0]:
            best = value, shares, rewards
    assert best is not None
    return Groups(best[2], best[1], best[0], None)


def by_annotator(
    annotator: Int[np.ndarray, " pairs"], margins: Float[np.ndarray, "groups pairs"]
) -> Float[np.ndarray, "annotators groups"]:
    """Log-likelihood of all choices of each annotator under each group's margins, in nats."""
    people = int(annotator.max()) + 1
    return np.stack(
        [np.bincount(annotator, weights=-np.logaddexp(0, -margin), minlength=people) for margin in margins], axis=1
    )


def likeliest(
    total: Float[np.ndarray, "annotators groups"], shares: Float[np.ndarray, "annotators groups"]
) -> tuple[float, Float[np.ndarray, "annotators groups"]]:
    """The log-likelihood of hard groups, and those: each annotator is of the group that fits best."""
    return float(total.max(axis=1).sum()), np.eye(total.shape[1])[total.argmax(axis=1)]


def posterior(
    total: Float[np.ndarray, "annotators groups"], shares: Float[np.ndarray, "annotators groups"]
) -> tuple[float, Float[np.ndarray, "annotators groups"]]:
    """The log-likelihood of a mixture with the sizes of the groups so far, and the probabilities of each annotator's group."""
    joint = total + np.log(shares.mean(axis=0) + 1e-12)
    whole = np.logaddexp.reduce(joint, axis=1, keepdims=True)
    return float(whole.sum()), np.exp(joint - whole)


def few_pairs(counts: Int[np.ndarray, " annotators"]) -> str | None:
    """Why groups cannot be found from so many pairs of each annotator, if so."""
    pairs = float(np.median(counts))
    return (
        f"{pairs:g} pairs an annotator, at the median; below {FEW_PAIRS} groups are not found"
        if pairs < FEW_PAIRS
        else None
    )


def _unsure(total: Float[np.ndarray, "annotators groups"]) -> str | None:
    """Why groups should not be believed, if the choices of annotators fit several of them."""
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
