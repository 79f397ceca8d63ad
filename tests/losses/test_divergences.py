"""The f-divergences and f-DPO."""

import math

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.losses import DIVERGENCES, Pair, divergence, f_dpo_loss
from align.losses.divergences import EXACT_RANGE

ALL = [divergence(name) for name in DIVERGENCES if name != "alpha"]
ALL += [divergence("alpha", alpha=a) for a in (0.3, 0.5, 0.7)]
EXTREME = [-1e4, -300.0, -200.0, -100.0, -60.0, -20.0, -15.0, -1.0, 0.0, 1.0, 15.0, 20.0, 60.0, 100.0, 1e4]
inside = st.floats(-EXACT_RANGE, EXACT_RANGE)


def f64(*values, **kw):
    return torch.tensor(values, dtype=torch.float64, **kw)


def ids(f):
    return f.name


@pytest.mark.parametrize("f", ALL, ids=ids)
def test_zero_where_policy_equals_reference(f):
    assert f(f64(0.0)).item() == 0.0


@pytest.mark.parametrize("f", ALL, ids=ids)
@given(r=inside)
def test_equals_the_paper_inside_the_exact_range(f, r):
    expected = oracles.GENERATORS[f.name][1](math.exp(r))
    assert f(f64(r)).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("f", ALL, ids=ids)
@given(r=st.floats(-6, 6))
def test_is_the_derivative_of_the_generator(f, r):
    generator = oracles.GENERATORS[f.name][0]
    u, h = math.exp(r), 1e-6 * math.exp(r)
    numeric = (generator(u + h) - generator(u - h)) / (2 * h)
    assert f(f64(r)).item() == pytest.approx(numeric, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("f", ALL, ids=ids)
def test_slope_is_the_derivative_and_curvature_its_value_at_one(f):
    r = torch.linspace(-12, 12, 49, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(f(r).sum(), r)
    assert_close(gradient, f.slope(r.detach()))
    assert f.slope(f64(0.0)).item() == f.curvature


@pytest.mark.parametrize("f", ALL, ids=ids)
def test_continued_past_the_range_once_differentiably_and_increasing(f):
    edge = f.exact_range
    for at in (-edge, edge):
        below, above = f64(at - 1e-7, requires_grad=True), f64(at + 1e-7, requires_grad=True)
        low, high = f(below), f(above)
        (slope_low,) = torch.autograd.grad(low.sum(), below)
        (slope_high,) = torch.autograd.grad(high.sum(), above)
        assert_close(low, high, rtol=1e-6, atol=1e-6)
        assert_close(slope_low, slope_high, rtol=1e-6, atol=1e-12)
    grid = torch.linspace(-1e4, 1e4, 20001, dtype=torch.float64)
    assert (f(grid).diff() > 0).all()


@pytest.mark.parametrize("f", ALL, ids=ids)
def test_the_barrier_that_f_dpo_needs(f):
    """f'(0+) = -inf: far below any value the other answers can have."""
    assert f(f64(-1e4)).item() < -9e3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("f", ALL, ids=ids)
def test_never_nan_never_dead(f, beta, dtype):
    """Every pair of log-ratios in ±10⁴: finite, right signs, and a gradient wherever there is something to learn."""
    chosen, rejected = (
        t.flatten().to(dtype).requires_grad_() for t in torch.meshgrid(*[torch.tensor(EXTREME)] * 2, indexing="ij")
    )
    result = f_dpo_loss(Pair(chosen, rejected), beta=beta, f=f, beta_scaling="raw")
    to_chosen, to_rejected = torch.autograd.grad(result.losses.sum(), (chosen, rejected))
    for tensor in (result.losses, *result.rewards, to_chosen, to_rejected):
        assert tensor.isfinite().all()
    assert (to_chosen <= 0).all()
    assert (to_rejected >= 0).all()
    dead = (to_chosen == 0) & (to_rejected == 0) & (result.losses > 1e-3)
    assert not dead.any(), list(zip(chosen[dead].tolist(), rejected[dead].tolist(), strict=True))


@pytest.mark.parametrize("f", ALL, ids=ids)
def test_gradcheck(f):
    g = torch.Generator().manual_seed(0)
    pair = [(torch.randn(6, dtype=torch.float64, generator=g) * 9).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda c, r: f_dpo_loss(Pair(c, r), beta=0.3, f=f, beta_scaling="raw").losses, pair)


@given(r=st.floats(-12, 12))
def test_alpha_limits(r):
    assert_close(divergence("alpha", alpha=1e-9)(f64(r)), divergence("reverse_kl")(f64(r)), rtol=1e-6, atol=1e-6)
    assert_close(divergence("alpha", alpha=1 - 1e-9)(f64(r)), divergence("forward_kl")(f64(r)), rtol=1e-6, atol=1e-6)


@given(r=inside)
def test_jensen_shannon_is_bounded_above_by_log_2(r):
    assert divergence("jensen_shannon")(f64(r)).item() < math.log(2)


def test_divergence_values_by_hand():
    """Oracle F5: D_f(P‖Q) for P=(.6,.3,.1), Q=(.2,.5,.3)."""
    p, q = (0.6, 0.3, 0.1), (0.2, 0.5, 0.3)
    expected = {"reverse_kl": 0.396058457, "forward_kl": 0.365274041, "jensen_shannon": 0.182241597}
    expected |= {"alpha=0.3": 0.379729199, "alpha=0.5": 0.372345692, "alpha=0.7": None, "chi_squared_kl": 0.902725124}
    for name, value in expected.items():
        if value is not None:
            got = sum(b * oracles.GENERATORS[name][0](a / b) for a, b in zip(p, q, strict=True))
            assert got == pytest.approx(value, abs=1e-9)


def test_alpha_is_trls_with_one_minus_alpha():
    """TRL 1.16: (u^(c-1) - 1) / (c - 1), the paper's α = 1 - c."""
    r, c = f64(1.2, -0.7), 1 - 0.3
    assert_close(divergence("alpha", alpha=0.3)(r), torch.expm1((c - 1) * r) / (c - 1))


@pytest.mark.parametrize(
    ("name", "alpha", "message"),
    [
        ("total_variation", None, "divergence must be one of"),
        ("alpha", None, "needs alpha"),
        ("alpha", 0.0, r"in \(0, 1\), got 0.0; 0 is reverse_kl"),
        ("alpha", 1.0, "1 is forward_kl"),
        ("alpha", -1.0, "would be finite"),
        ("forward_kl", 0.5, "only used by divergence 'alpha'"),
    ],
)
def test_refuses_what_does_not_qualify(name, alpha, message):
    with pytest.raises(ValueError, match=message):
        divergence(name, alpha=alpha)
