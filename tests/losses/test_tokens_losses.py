"""Losses on single completions."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.losses.token_objectives import OBJECTIVES
from align.losses.tokens import CERTAIN, awr, dft, fsft, mean_logps, nll, poft, rwr, rwr_weight, unlikelihood

DOUBLE = torch.float64
logps_ = st.lists(st.floats(-30, -1e-3), min_size=1, max_size=6)
number = st.floats(-5, 5)
NAN = float("nan")


def one(value):
    return torch.tensor([float(value)], dtype=DOUBLE)


def row(logps, **kw):
    """One row with a token before and one after that do not belong to the completion."""
    values = torch.tensor([[NAN, *logps, NAN]], dtype=DOUBLE)
    mask = torch.tensor([[False, *[True] * len(logps), False]])
    return values.requires_grad_(**kw) if kw else values, mask


def every_loss(token_logps, mask):
    """Each objective on log-probabilities, with settings of no importance."""
    count = len(token_logps)
    each = torch.linspace(-1, 1, count, dtype=token_logps.dtype)
    return {
        "nll": nll(token_logps, mask),
        "dft": dft(token_logps, mask),
        "unlikelihood": unlikelihood(token_logps, mask, each > 0, alpha=0.7),
        "rwr": rwr(token_logps, mask, each, beta=0.5, max_weight=3.0),
        "awr": awr(token_logps, mask, each, (each[:, None] / 3).expand_as(token_logps), beta=0.5, max_weight=3.0),
        "poft": poft(token_logps, mask, each - 1),
        "fsft": fsft(
            -nll(token_logps, mask), each * 5, torch.zeros(count, dtype=each.dtype), beta=0.1, divergence="chi_squared"
        ),
    }


# --- oracle: the formulas, restated in plain Python --------------------------------------------


@given(logps_, number)
def test_losses_of_likelihood_equal_their_formulas(logps, reward):
    args = row(logps)
    assert nll(*args).item() == pytest.approx(-sum(logps))
    assert mean_logps(*args).item() == pytest.approx(sum(logps) / len(logps))
    assert dft(*args).item() == pytest.approx(-sum(math.exp(v) * v for v in logps), rel=1e-9)
    weight = min(math.exp(reward / 2.0), 3.0)
    assert rwr(*args, one(reward), beta=2.0, max_weight=3.0).item() == pytest.approx(-weight * sum(logps))


@given(logps_, number)
def test_poft_equals_its_formula_and_its_gradient_is_a_weighted_nll(logps, aligned):
    values, mask = row(logps, requires_grad=True)
    loss = poft(values, mask, one(aligned))
    mean = sum(logps) / len(logps)
    assert loss.item() == pytest.approx(
        math.log1p(math.exp(aligned - mean)) if aligned - mean < 700 else aligned - mean
    )
    loss.sum().backward()
    weight = 1 / (1 + math.exp(mean - aligned))
    expected = [0.0, *[-weight / len(logps)] * len(logps), 0.0]
    assert values.grad[0].tolist() == pytest.approx(expected, rel=1e-9)


@given(logps_, st.floats(0, 3))
def test_unlikelihood_equals_its_formula_on_either_side(logps, alpha):
    args = row(logps)
    assert unlikelihood(*args, torch.tensor([False]), alpha=alpha).item() == pytest.approx(-sum(logps))
    expected = -alpha * sum(math.log1p(-math.exp(v)) for v in logps)
    assert unlikelihood(*args, torch.tensor([True]), alpha=alpha).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(number, number, number, st.floats(0.05, 2))
def test_fsft_equals_the_derivation(policy, ref, value, beta):
    reward = beta * (policy - ref) + value
    args = one(policy), one(ref), one(value)
    tv = fsft(*args, beta=beta, divergence="total_variation")
    assert tv.item() == pytest.approx(-reward + value, abs=1e-9)
    chi = fsft(*args, beta=beta, divergence="chi_squared")
    assert chi.item() == pytest.approx(-(reward - reward**2 / 4) + value, abs=1e-9)


def test_by_hand():
    logps = torch.tensor([[math.log(0.5), math.log(0.25), 0.0]], dtype=DOUBLE)
    mask = torch.tensor([[True, True, False]])
    assert nll(logps, mask).item() == pytest.approx(math.log(8))
    assert dft(logps, mask).item() == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(4))
    assert unlikelihood(logps, mask, torch.tensor([True]), alpha=2.0).item() == pytest.approx(2 * math.log(8 / 3))
    assert poft(logps, mask, one(-1.5 * math.log(2))).item() == pytest.approx(math.log(2))


# --- gradients ---------------------------------------------------------------------------------


def test_the_gradient_of_dft_is_that_of_minus_the_probability():
    logits = torch.randn(7, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logp = logits.log_softmax(-1)[2].reshape(1, 1)
    mask = torch.ones(1, 1, dtype=torch.bool)
    (got,) = torch.autograd.grad(dft(logp, mask).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad(-logp.exp().sum(), logits)
    assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("ref_kl", "dft")])
def test_gradients_are_those_of_the_values(name):
    """dft stops a gradient on purpose: above."""
    values = torch.tensor([[-0.3, -2.0], [-1.0, -0.01]], dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    assert torch.autograd.gradcheck(lambda v: every_loss(v, mask)[name], values)


# --- optima ------------------------------------------------------------------------------------


def minimised(loss, start):
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], lr=1, max_iter=400, tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    for _ in range(8):
        optimizer.step(closure)
    return logits.detach()


@pytest.fixture
def table():
    """Five answers of one token: the data's law, the reference's, and a reward."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    return draws[0].log_softmax(-1), draws[1].log_softmax(-1), draws[2]


def test_rwr_reaches_the_law_of_the_data_times_the_exponential_of_the_reward(table):
    data, _, reward = table
    mask = torch.ones(5, 1, dtype=torch.bool)

    def loss(logits):
        return (data.exp() * rwr(logits.log_softmax(-1)[:, None], mask, reward, beta=0.5, max_weight=1e9)).sum()

    assert_close(
        minimised(loss, torch.zeros(5, dtype=DOUBLE)).log_softmax(-1),
        (data + reward / 0.5).log_softmax(-1),
        atol=1e-6,
        rtol=0,
    )


SLOPES = {"total_variation": torch.ones_like, "chi_squared": lambda r: 1 - r / 2}


@pytest.mark.parametrize("divergence", SLOPES)
def test_fsft_is_stationary_where_the_policy_is_the_expert_times_the_slope(table, divergence):
    expert, ref, _ = table
    beta = 0.5

    def loss(reward):  # any function of the answers is a policy and a value
        value = beta * torch.logsumexp(ref + reward / beta, 0)
        policy = ref + (reward - value) / beta
        return (expert.exp() * fsft(policy, ref, value.expand(5), beta=beta, divergence=divergence)).sum()

    reward = minimised(loss, torch.zeros(5, dtype=DOUBLE))
    policy = (ref + reward / beta).log_softmax(-1).exp()
    assert_close(policy, expert.exp() * SLOPES[divergence](reward), atol=1e-6, rtol=0)
    value = beta * torch.logsumexp(ref + reward / beta, 0)
    if divergence == "chi_squared":
        assert value.item() == pytest.approx(-beta * (expert.exp() * (policy.log() - ref)).sum().item(), abs=1e-6)
        assert (policy - expert.exp()).abs().sum() > 0.1


@pytest.mark.parametrize("divergence", SLOPES)
def test_without_a_value_the_optimum_keeps_its_form(table, divergence):
    expert, ref, _ = table

    def loss(logits):
        zero = torch.zeros(5, dtype=DOUBLE)
        return (expert.exp() * fsft(logits.log_softmax(-1), ref, zero, beta=0.3, divergence=divergence)).sum()

    policy = minimised(loss, torch.zeros(5, dtype=DOUBLE)).log_softmax(-1)
    form = expert.exp() * SLOPES[divergence](0.3 * (policy - ref))
    assert_close(policy.exp(), form / form.sum(), atol=1e-6, rtol=0)


# --- extremes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, -1e-30, -1e-7, -1e-3, -5.0, -100.0, -1e4])
def test_losses_and_gradients_are_finite_at_the_extremes(value, dtype):
    values = torch.full((3, 4), value, dtype=dtype).requires_grad_()
    for name, losses in every_loss(values, torch.ones(3, 4, dtype=torch.bool)).items():
        (gradient,) = torch.autograd.grad(losses.sum(), values)
        assert losses.isfinite().all(), name
        assert gradient.isfinite().all(), name
        assert (gradient < 0)[0].all() or name == "dft", name  # the first row is wanted: nothing is dead


def test_unlikelihood_is_continuous_with_its_slope_where_the_tangent_begins():
    step = CERTAIN * 1e-6
    at = torch.tensor([[-CERTAIN - step], [-CERTAIN], [-CERTAIN + step]], dtype=DOUBLE, requires_grad=True)
    losses = unlikelihood(at, torch.ones(3, 1, dtype=torch.bool), torch.ones(3, dtype=torch.bool), alpha=1.0)
    (slope,) = torch.autograd.grad(losses.sum(), at)
    assert_close(losses[0], losses[2], rtol=1e-5, atol=1e-5)
    assert_close(slope, slope[1].expand(3, 1), rtol=1e-5, atol=0)
    assert slope[1].item() == pytest.approx(1 / math.expm1(CERTAIN))


@pytest.mark.parametrize("value", [-20.0, -2.0, -1e-3])
def test_unlikelihood_keeps_its_digits_in_single_precision(value):
    loss = unlikelihood(torch.tensor([[value]]), torch.ones(1, 1, dtype=torch.bool), torch.tensor([True]), alpha=1.0)
    exact = math.expm1(float(torch.tensor(value)))
    expected = -math.log(-exact) if value > -1 else -math.log1p(-math.exp(value))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_unlikelihood_of_half_precision_is_computed_in_single(dtype):
    """Of what the log-probabilities were rounded to; each of its own steps rounded too would lose a digit of 400 tokens' sum."""
    values = torch.linspace(-0.3, -0.01, 400, dtype=torch.float32)[None].to(dtype)
    mask, unwanted = torch.ones(1, 400, dtype=torch.bool), torch.tensor([True])
    loss = unlikelihood(values, mask, unwanted, alpha=1.0)
    assert loss.dtype == torch.float32
    assert_close(loss, unlikelihood(values.float(), mask, unwanted, alpha=1.0), rtol=1e-6, atol=0)


def test_unlikelihood_pushes_a_certain_token_down():
    logits = torch.tensor([12.0, 0.0, 0.0], requires_grad=True)
    logp = F.log_softmax(logits, -1)[0].reshape(1, 1)
    unlikelihood(logp, torch.ones(1, 1, dtype=torch.bool), torch.tensor([True]), alpha=1.0).sum().backward()
    assert logits.grad[0] > 0.05
    assert logits.grad[1] < -0.02


@pytest.mark.parametrize("reward", [1e6, 1e30])
def test_the_weight_of_a_large_reward_is_the_cap(reward):
    weights = rwr_weight(torch.tensor([reward, -reward, 0.0]), beta=0.1, max_weight=20.0)
    assert weights.tolist() == pytest.approx([20.0, 0.0, 1.0])


# --- what every loss does ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "ref_kl"])
def test_values_outside_the_completion_do_not_matter_even_if_they_are_nan(name):
    clean = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.1, -4.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    spoilt = clean.detach().masked_fill(~mask, NAN).requires_grad_()
    ours, other = every_loss(clean, mask)[name], every_loss(spoilt, mask)[name]
    assert_close(ours, other)
    (a,) = torch.autograd.grad(ours.sum(), clean)
    (b,) = torch.autograd.grad(other.sum(), spoilt)
    assert_close(a, b)
    assert (b[~mask] == 0).all()


def test_a_row_without_a_completion_is_refused():
    for call in (nll, dft, mean_logps):
        with pytest.raises(ValueError, match=r"rows \[1\] have no completion token"):
            call(torch.zeros(2, 3), torch.tensor([[True, True, True], [False, False, False]]))


def test_settings_out_of_range_are_refused():
    values, mask, zero = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1)
    with pytest.raises(ValueError, match="alpha must not be negative"):
        unlikelihood(values, mask, torch.tensor([True]), alpha=-0.1)
    for bad in ({"beta": 0.0, "max_weight": 1.0}, {"beta": 1.0, "max_weight": 0.0}):
        with pytest.raises(ValueError, match="beta and max_weight must be positive"):
            rwr(values, mask, zero, **bad)
    with pytest.raises(ValueError, match="beta must be positive"):
        fsft(zero, zero, zero, beta=0.0, divergence="chi_squared")
    with pytest.raises(ValueError, match="ref_logps requires a gradient"):
        fsft(zero, zero.clone().requires_grad_(), zero, beta=1.0, divergence="chi_squared")
