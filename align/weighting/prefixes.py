"""Credits tokens at which the completions of a prompt part (T-SPMO, arXiv:2504.20834)."""

import math
from collections.abc import Sequence


def prefix_credit(completions: Sequence[Sequence[int]], rewards: Sequence[float]) -> tuple[list[list[float]], int]:
    """What each token's probability counts in the mean of π(v|p) A(p, v) over the pairs of a group, and how many pairs there are.

    A pair is a prefix p and a token v after it, where another completion goes on from p otherwise. A(p, v) is the mean
    reward of completions that begin with p and v, less that of those that go on from p with another token. A pair counts
    1 / pairs, spread over the completions that have it. One that ends at p, an end of sequence being a token, is in no
    pair there.

    Source: Lee and Tong 2025, the formula from memory; its identities are checked. π, not log π, is what is learnt, so rare
    tokens move slowly, and in expectation A is (Q - V) / (1 - π): with two continuations twice the policy gradient, with
    more another direction.

    Args:
        completions: Token ids of each completion of a prompt.
        rewards: Of each; one that is NaN is left out.

    Returns:
        A number for each token of each completion, 0 where no pair is; and the number of pairs.
    """
    credit = [[0.0] * len(tokens) for tokens in completions]
    scored = [row for row, reward in enumerate(rewards) if not math.isnan(reward)]
    found: list[tuple[int, list[int], float]] = []
    prefixes = [(0, scored)]
    while prefixes:
        depth, rows = prefixes.pop()
        after: dict[int, list[int]] = {}
        for row in rows:
            if depth < len(completions[row]):
                after.setdefault(completions[row][depth], []).append(row)
        everyone = [row for members in after.values() for row in members]
        total = math.fsum(rewards[row] for row in everyone)
        for members in after.values():
            own = math.fsum(rewards[row] for row in members)
            if len(members) < len(everyone):
                others = (total - own) / (len(everyone) - len(members))
                found.append((depth, members, own / len(members) - others))
            if len(members) > 1:
                prefixes.append((depth + 1, members))
    for depth, members, advantage in found:
        for row in members:
            credit[row][depth] = advantage / len(members) / len(found)
    return credit, len(found)
