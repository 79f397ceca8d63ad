"""LD-DPO's log-probabilities: restated in plain floats, by hand, and at the extremes."""

import math

import oracles_pairwise as oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.losses import Pair, desensitized_logps, dpo_loss, implicit_rewards, log_ratios, sequence_logps

answers = st.lists(st.floats(-9, 0), min_size=1, max_size=6)


def rows(*answers, prompt=2, filler=math.nan, dtype=torch.float64):
    """Answers after a prompt, padded on the right."""
    width = prompt + max(map(len, answers)) + 1
    logps = torch.full((len(answers), width), filler, dtype=dtype)
    mask = torch.zeros(len(answers), width, dtype=torch.bool)
    for row, answer in enumerate(answers):
        logps[row, prompt : prompt + len(answer)] = torch.tensor(answer, dtype=dtype)
        mask[row, prompt : prompt + len(answer)] = True
    return logps, mask


@given(st.tuples(answers, answers), st.tuples(answers, answers), st.floats(0, 1))
def test_two_pairs_in_plain_floats(first, second, alpha):
    got = desensitized_logps(*rows(first[0], second[0], first[1], second[1]), alpha=alpha)
    expected = []
    for side in (0, 1):
        for pair in (first, second):
            shared = min(len(pair[0]), len(pair[1]))
            expected.append(sum(pair[side][:shared]) + alpha * sum(pair[side][shared:]))
    assert got.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("alpha", "loss"), [(1.0, 0.649159), (0.5, 0.653947), (0.0, 0.658760)])
def test_ld_dpo_by_hand(alpha, loss):
    """Log-ratios .1, .2, -.2, .4 of the chosen and -.3, -.1 of the rejected answer, β = 0.1: D is .9, .8, .7."""
    policy = desensitized_logps(*rows([-0.5, -0.2, -0.9, -0.4], [-1.0, -0.3]), alpha=alpha).chunk(2)
    ref = desensitized_logps(*rows([-0.6, -0.4, -0.7, -0.8], [-0.7, -0.2]), alpha=alpha).chunk(2)
    rewards = implicit_rewards(log_ratios(Pair(*policy), Pair(*ref)), beta=0.1)
    assert dpo_loss(rewards).item() == pytest.approx(loss, abs=1e-6)
    assert dpo_loss(rewards).item() == pytest.approx(-math.log(oracles.sigmoid(0.1 * (0.7 + 0.2 * alpha))), abs=1e-9)


def test_answers_of_one_length_and_an_alpha_of_one_are_plain_sums():
    even, uneven = rows([-1.0, -2.0], [-3.0, -4.0]), rows([-1.0, -2.0, -5.0], [-3.0])
    assert_close(desensitized_logps(*even, alpha=0.3), sequence_logps(*even))
    assert_close(desensitized_logps(*uneven, alpha=1.0), sequence_logps(*uneven))


def test_positions_are_those_of_the_answer_and_a_tail_has_its_share_of_the_slope():
    logps, mask = rows([-1.0, -2.0, -4.0], [-3.0], prompt=3)
    logps = logps.roll(2, dims=1).requires_grad_()  # where prompts are longer, or rows padded on the left
    desensitized_logps(logps, mask.roll(2, dims=1), alpha=0.25).sum().backward()
    assert logps.grad[logps.grad != 0].tolist() == [1.0, 0.25, 0.25, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_at_ten_thousand_nats(dtype):
    logps, mask = rows([-1e4, -1e4], [-1e4], dtype=dtype)
    logps.requires_grad_()
    got = desensitized_logps(logps, mask, alpha=0.5)
    got.sum().backward()
    assert got.tolist() == pytest.approx([-1.5e4, -1e4], rel=4e-3)
    assert logps.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        desensitized_logps(*rows([-1.0], [-1.0]), alpha=alpha)
