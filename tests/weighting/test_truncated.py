"""Advantages of windows that go on: chains by hand, plain generalised advantages, and the bias of a cut."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from align.weighting.truncated import extended_gae

F64 = torch.float64
VALUES = (0.2, 0.5, 0.4, 0.6)


def of(values, rewards, finished, *, gamma=1.0, lam=0.95):
    """One row whose window is all of it."""
    window = torch.ones(1, len(values), dtype=torch.bool)
    rows = (torch.tensor([each], dtype=F64) for each in (values, rewards))
    return extended_gae(*rows, window, torch.tensor([finished]), gamma=gamma, lam=lam)[0].tolist()


def plain_gae(values, rewards, gamma, lam):
    """Generalised advantages of a finished answer, as a sum over all later errors."""
    following = np.append(values[1:], 0.0)
    delta = rewards + gamma * following - values
    n = len(values)
    return np.array([sum((gamma * lam) ** (i - t) * delta[i] for i in range(t, n)) for t in range(n)])


def test_chains_by_hand():
    assert of(VALUES, [0.0] * 4, finished=False) == pytest.approx([0.3855, 0.09, 0.2, 0.0])
    assert of(VALUES, [0.0, 0.0, 0.0, 1.0], finished=True) == pytest.approx([0.72845, 0.451, 0.58, 0.4])
    assert of([0.5, 0.4], [0.0, 0.0], finished=False, gamma=0.5, lam=1.0) == pytest.approx([-0.4, -0.2])
    assert of([0.5, 0.4], [0.1, 1.0], finished=True, gamma=0.5, lam=0.5) == pytest.approx([-0.2 + 0.25 * 0.6, 0.6])


def test_without_a_cut_they_are_plain_generalised_advantages():
    draw = np.random.default_rng(3)
    for gamma, lam in ((1.0, 0.95), (0.9, 0.5), (0.97, 0.0), (1.0, 1.0)):
        values, rewards = draw.normal(size=7), draw.normal(size=7)
        assert of(list(values), list(rewards), True, gamma=gamma, lam=lam) == pytest.approx(
            plain_gae(values, rewards, gamma, lam)
        )


def test_a_critic_of_zeros_learns_nothing_from_a_cut_and_lambda_1_compares_with_the_last_value():
    assert of([0.0] * 5, [0.0] * 5, finished=False) == [0.0] * 5
    assert of(VALUES, [0.0] * 4, finished=False, lam=1.0) == pytest.approx([0.4, 0.1, 0.2, 0.0])


def test_the_bias_of_a_cut_is_that_of_its_last_value():
    """Against the state's own value, 0.9, known one token later."""
    gamma, lam, then = 0.9, 0.8, 0.9
    cut = of(VALUES, [0.0] * 4, finished=False, gamma=gamma, lam=lam)
    values = np.array([*VALUES, then])
    delta = gamma * values[1:] - values[:-1]
    known = [sum((gamma * lam) ** (i - t) * delta[i] for i in range(t, 4)) for t in range(4)]
    bias = [gamma * (gamma * lam) ** (3 - t) * (0.6 - then) for t in range(4)]
    assert cut == pytest.approx([k + b for k, b in zip(known, bias, strict=True)])


def test_windows_lie_anywhere_and_rows_do_not_feel_each_other():
    """What is outside of a window does not count, whatever it is; rows may stand in any order."""
    nan = float("nan")
    values = torch.tensor([[nan, *VALUES, nan], [9.0, 9.0, *VALUES], [*VALUES, nan, 5.0]], dtype=F64)
    rewards = torch.tensor([[nan, 0, 0, 0, 1, nan], [7, 7, 0, 0, 0, 1], [0, 0, 0, 0, 3, 3]], dtype=F64)
    places = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
    finished = torch.tensor([True, True, False])
    for order in ([0, 1, 2], [2, 0, 1]):
        found = extended_gae(values[order], rewards[order], places[order], finished[order], gamma=1.0, lam=0.95)
        done, cut = [0.72845, 0.451, 0.58, 0.4], [0.3855, 0.09, 0.2, 0.0]
        wanted = torch.tensor([[0, *done, 0], [0, 0, *done], [*cut, 0, 0]], dtype=F64)[order]
        assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_over_values_of_0_they_are_discounted_returns():
    assert of([0.0] * 3, [0.1, 0.2, 1.0], finished=True, gamma=0.5, lam=1.0) == pytest.approx([0.45, 0.7, 1.0])
