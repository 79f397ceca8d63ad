"""Credit of tokens at which completions part: by hand, by its identities, and against autograd of the objective itself."""

import random
from math import nan

import pytest
import torch

from align.weighting.advantages import LeaveOneOut
from align.weighting.prefixes import prefix_credit

HAND = [list(map(ord, text)) for text in ("abX.", "abY.", "acX.", "d.")]


def naive(completions, rewards):
    """{(prefix, token): (advantage, members)}, by looking at every prefix of every completion."""
    found = {}
    for one in completions:
        for depth, token in enumerate(one):
            prefix = one[:depth]
            here = [i for i, c in enumerate(completions) if c[:depth] == prefix and len(c) > depth]
            members = [i for i in here if completions[i][depth] == token]
            others = [rewards[i] for i in here if i not in members]
            if others:
                own = sum(rewards[i] for i in members) / len(members)
                found[tuple(prefix), token] = own - sum(others) / len(others), members
    return found


def test_a_tree_by_hand():
    credit, pairs = prefix_credit(HAND, [1.0, 0.0, 1.0, 0.0])
    assert pairs == 6
    wanted = [[2 / 9, -0.25, 1, 0], [2 / 9, -0.25, -1, 0], [2 / 9, 0.5, 0, 0], [-2 / 3, 0]]
    assert credit == [pytest.approx([value / 6 for value in row], abs=1e-12) for row in wanted]


def test_completions_that_part_at_once_have_leave_one_out_advantages():
    rewards = [1.0, 0.0, 0.0, 0.5]
    credit, pairs = prefix_credit([[7], [8], [9], [5]], rewards)
    known = LeaveOneOut()(torch.tensor(rewards)[:, None], group_size=4, aux={})[:, 0]
    assert [4 * row[0] for row in credit] == pytest.approx(known.tolist())
    assert pairs == 4


def test_what_is_cut_equal_or_not_scored_is_in_no_pair():
    assert prefix_credit([[1, 2], [1]], [1.0, 0.0]) == (
        [[0.0, 0.0], [0.0]],
        0,
    )  # the second is a beginning of the first
    assert prefix_credit([[1, 2], [1, 2]], [1.0, 0.0]) == ([[0.0, 0.0]] * 2, 0)
    assert prefix_credit([[1, 2], [1, 3], [1, 4]], [1.0, nan, 0.0]) == ([[0.0, 0.5], [0.0, 0.0], [0.0, -0.5]], 2)
    assert prefix_credit([[1], [2]], [nan, nan]) == ([[0.0], [0.0]], 0)
    assert prefix_credit([[], [1]], [1.0, 0.0]) == ([[], [0.0]], 0)


def test_the_gradient_is_that_of_the_mean_over_pairs():
    """Of random trees, and with rewards far apart."""
    draw = random.Random(0)
    for scale in (1.0, 1e4):
        completions = [[draw.randrange(3) for _ in range(draw.randrange(1, 6))] for _ in range(8)]
        rewards = [scale * draw.random() for _ in completions]
        tables, generator = {}, torch.Generator().manual_seed(1)

        def logp(prefix, token, tables=tables, generator=generator):
            if prefix not in tables:
                tables[prefix] = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
            return tables[prefix].log_softmax(0)[token]

        pairs = naive(completions, rewards)
        wanted = sum(logp(p, v).exp() * a for (p, v), (a, _) in pairs.items()) / len(pairs)
        credit, count = prefix_credit(completions, rewards)
        assert count == len(pairs)
        ours = sum(
            logp(tuple(one[:depth]), one[depth]).exp() * credit[row][depth]
            for row, one in enumerate(completions)
            for depth in range(len(one))
        )
        gradients = (torch.autograd.grad(x, list(tables.values()), allow_unused=True) for x in (ours, wanted))
        for one, other in zip(*gradients, strict=True):
            assert torch.allclose(one, torch.zeros_like(one) if other is None else other, atol=1e-12 * scale)


def test_the_order_of_completions_does_not_matter():
    rewards, order = [1.0, 0.25, 0.5, 0.0], [2, 0, 3, 1]
    credit, _ = prefix_credit(HAND, rewards)
    turned, _ = prefix_credit([HAND[i] for i in order], [rewards[i] for i in order])
    assert turned == [credit[i] for i in order]
