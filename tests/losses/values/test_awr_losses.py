"""Advantage-weighted regression as a function of log-probabilities, rewards and values."""

import math

import pytest
import torch

from align.losses.tokens import awr

DOUBLE = torch.float64
NAN = float("nan")


def test_awr_equals_a_hand_worked_batch():
    """Weights e^.5 and e^-.5 of log-probabilities -1 and -2."""
    values = torch.tensor([[0.5], [0.5]], dtype=DOUBLE)
    logps, reward = torch.tensor([[-1.0], [-2.0]], dtype=DOUBLE), torch.tensor([1.0, 0.0], dtype=DOUBLE)
    losses = awr(logps, torch.ones(2, 1, dtype=torch.bool), reward, values, beta=1.0, max_weight=1000.0)
    assert losses.tolist() == pytest.approx([1.648721, 1.213061], abs=1e-6)
    both = 0.5 * losses.mean().item() + 0.5 * (reward[:, None] - values).square().mean().item()
    assert both == pytest.approx(0.840446, abs=1e-6)  # with the value loss, as its authors add them


def test_awr_weighs_each_token_by_its_own_advantage():
    logps = torch.tensor([[NAN, -1.0, -2.0, -4.0, NAN]], dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor([[False, True, True, True, False]])
    values = torch.tensor([[NAN, 0.2, -0.3, 9.0, NAN]], dtype=DOUBLE)
    loss = awr(logps, mask, torch.tensor([0.7], dtype=DOUBLE), values, beta=0.5, max_weight=4.0)
    assert loss.item() == pytest.approx(math.exp(1.0) * 1 + 4.0 * 2 + math.exp(-16.6) * 4)  # e^2 is more than 4
    (gradient,) = torch.autograd.grad(loss, logps)
    assert gradient[0].tolist() == pytest.approx([0.0, -math.exp(1.0), -4.0, -math.exp(-16.6), 0.0])


@pytest.mark.parametrize("value", [0.08, -3.0])
def test_awrs_optimum_feels_no_value_of_the_prompt_until_the_cap_binds(value):
    """Laws of four answers worked by hand; 0.08 is the mean reward of the data."""
    data = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=DOUBLE)
    reward = torch.tensor([1.0, 0.3, -0.5, -1.2], dtype=DOUBLE)

    def slope(law, max_weight):
        """Of the expected loss, which is convex in the logits, at a law of the answers, per unit of weight."""
        logits, mask = law.log().requires_grad_(), torch.ones(4, 1, dtype=torch.bool)
        values = torch.full((4, 1), value, dtype=DOUBLE)
        losses = awr(logits.log_softmax(-1)[:, None], mask, reward, values, beta=0.5, max_weight=max_weight)
        (gradient,) = torch.autograd.grad((data * losses).sum(), logits)
        return gradient / min(max_weight, math.exp(-value / 0.5))

    free = torch.tensor([0.824463, 0.152483, 0.020524, 0.002531], dtype=DOUBLE)
    assert slope(free, 1e9).abs().max() < 1e-5
    assert slope(data, 1e9).abs().max() > 0.1
    if value < 0:  # every weight is at the cap: the law of the data
        assert slope(data, 2.0).abs().max() < 1e-12
        assert slope(free, 2.0).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("advantage", [1e4, -1e4])
def test_awr_is_finite_at_extreme_advantages(advantage, dtype):
    logps = torch.full((2, 3), -1e4, dtype=dtype).requires_grad_()
    values = torch.full((2, 3), -advantage)
    losses = awr(logps, torch.ones(2, 3, dtype=torch.bool), torch.zeros(2), values, beta=1.0, max_weight=1000.0)
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    expected = 1000.0 if advantage > 0 else 0.0
    assert losses.tolist() == pytest.approx([expected * 3e4] * 2, rel=0.01)
    assert gradient.float().flatten().tolist() == pytest.approx([-expected] * 6, rel=0.01)


def test_settings_out_of_range_and_values_that_learn_are_refused():
    values, mask, zero = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1)
    for bad in ({"beta": 0.0, "max_weight": 1.0}, {"beta": 1.0, "max_weight": 0.0}):
        with pytest.raises(ValueError, match="beta and max_weight must be positive"):
            awr(values, mask, zero, values, **bad)
    with pytest.raises(ValueError, match="values requires a gradient"):
        awr(values, mask, zero, values.clone().requires_grad_(), beta=1.0, max_weight=1.0)
