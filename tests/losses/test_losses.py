"""DPO, RPO and what they are made of."""

import math

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from align.losses import Pair, divergence, dpo_loss, f_dpo_loss, implicit_rewards, log_ratios, rpo_loss, sequence_logps

logp = st.floats(-30, 0, allow_subnormal=False)
beta_ = st.floats(0.01, 2)
JS = divergence("jensen_shannon")


def pair(chosen, rejected, **kw):
    return Pair(*(torch.tensor([float(v)], dtype=torch.float64, **kw) for v in (chosen, rejected)))


def dpo(policy, ref, beta, **kw):
    return dpo_loss(implicit_rewards(log_ratios(policy, ref), beta=beta), **kw)


def rpo(policy, ref, tokens=(5.0,), *, beta=0.1, eta=0.005, **kw):
    rewards = implicit_rewards(log_ratios(policy, ref), beta=beta)
    count = torch.tensor(tokens, dtype=policy.chosen.dtype)
    return rpo_loss(rewards, policy.chosen, count, beta=beta, eta=eta, **kw)


# --- oracle: the paper, restated ---------------------------------------------------------------


@given(logp, logp, logp, logp, beta_)
def test_dpo_equals_equation_7(pw, pl, rw, rl, beta):
    assert dpo(pair(pw, pl), pair(rw, rl), beta).item() == pytest.approx(
        oracles.dpo(pw, pl, rw, rl, beta), rel=1e-9, abs=1e-12
    )


@given(logp, logp, logp, logp, beta_)
def test_dpo_gradient_equals_section_4(pw, pl, rw, rl, beta):
    policy = pair(pw, pl, requires_grad=True)
    dpo(policy, pair(rw, rl), beta).sum().backward()
    expected = oracles.dpo_gradient(pw, pl, rw, rl, beta)
    assert policy.chosen.grad.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert policy.rejected.grad.item() == pytest.approx(-expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", oracles.GENERATORS)
@given(r_w=st.floats(-4, 4), r_l=st.floats(-4, 4), beta=st.floats(0.01, 1))
def test_f_dpo_equals_the_paper(name, r_w, r_l, beta):
    kind, _, value = name.partition("=")
    f = divergence(kind, alpha=float(value) if value else None)
    got = f_dpo_loss(pair(r_w, r_l), beta=beta, f=f, beta_scaling="raw")
    assert got.losses.item() == pytest.approx(oracles.f_dpo(r_w, r_l, beta, name), rel=1e-9)
    assert got.rewards.chosen.item() == pytest.approx(beta * oracles.GENERATORS[name][1](math.exp(r_w)), abs=1e-9)


# --- golden: numbers worked out elsewhere, to the ninth digit -----------------------------------


@pytest.mark.parametrize(
    ("name", "alpha", "expected"),
    [
        ("reverse_kl", None, 0.602652909),
        ("forward_kl", None, 0.611180855),
        ("jensen_shannon", None, 0.652033540),
        ("alpha", 0.3, 0.607798510),
        ("alpha", 0.5, 0.609903546),
        ("alpha", 0.7, 0.611062311),
        ("chi_squared_kl", None, 0.484604803),
    ],
)
def test_f_dpo_golden(name, alpha, expected):
    """Oracle F1: r = (1.2, -0.7), β = 0.1."""
    got = f_dpo_loss(pair(1.2, -0.7), beta=0.1, f=divergence(name, alpha=alpha), beta_scaling="raw")
    assert got.losses.item() == pytest.approx(expected, abs=1e-9)


def test_dpo_by_hand():
    policy = Pair(torch.tensor([-0.5, -10.0, -1.0]), torch.tensor([-0.1, -30.0, -21.0]))
    ref = Pair(torch.tensor([-0.5, -10.1, -0.1]), torch.tensor([-0.1, -20.1, -0.1]))
    # log-ratio margins 0, 10, 20; times β=0.1: 0, 1, 2; then log(1 + e^-m)
    expected = torch.tensor([math.log(2), math.log1p(math.exp(-1)), math.log1p(math.exp(-2))])
    assert_close(dpo(policy, ref, 0.1), expected, rtol=1e-5, atol=1e-6)


def test_curvature_scaling_by_hand():
    """JSD has f''(1) = 1/2, so "curvature" doubles β."""
    scaled = f_dpo_loss(pair(1.0, -1.0), beta=0.1, f=JS, beta_scaling="curvature")
    doubled = f_dpo_loss(pair(1.0, -1.0), beta=0.2, f=JS, beta_scaling="raw")
    assert_close(scaled.losses, doubled.losses)
    assert_close(scaled.rewards.chosen, doubled.rewards.chosen)


def test_f_dpo_counts_its_tail():
    r = Pair(torch.tensor([0.0, -20.0, 20.0]), torch.tensor([0.0, 0.0, -20.0]))
    result = f_dpo_loss(r, beta=0.1, f=divergence("forward_kl"), beta_scaling="raw")
    assert result.diagnostics["fdpo/tail_share"].tolist() == [0.0, 0.5, 1.0]


# --- RPO ---------------------------------------------------------------------------------------


@given(logp, logp, logp, logp, beta_)
def test_rpo_without_eta_is_dpo_to_the_bit(pw, pl, rw, rl, beta):
    a, b = pair(pw, pl, requires_grad=True), pair(pw, pl, requires_grad=True)
    ours, plain = rpo(a, pair(rw, rl), beta=beta, eta=0.0).losses, dpo(b, pair(rw, rl), beta)
    ours.sum().backward()
    plain.sum().backward()
    assert ours.item() == plain.item()
    assert a.chosen.grad.item() == b.chosen.grad.item()
    assert a.rejected.grad.item() == b.rejected.grad.item()


@given(logp, logp, logp, logp, beta_, st.floats(0.001, 2))
def test_rpo_adds_eta_beta_times_the_summed_nll(pw, pl, rw, rl, beta, eta):
    policy = pair(pw, pl, requires_grad=True)
    result = rpo(policy, pair(rw, rl), beta=beta, eta=eta)
    assert (result.losses - dpo(policy, pair(rw, rl), beta)).item() == pytest.approx(-eta * beta * pw, abs=1e-12)
    assert result.components["sft"].item() == pytest.approx(-eta * beta * pw)
    result.losses.sum().backward()
    expected = oracles.dpo_gradient(pw, pl, rw, rl, beta)
    assert policy.chosen.grad.item() == pytest.approx(expected - eta * beta, rel=1e-9)
    assert policy.rejected.grad.item() == pytest.approx(-expected, rel=1e-9)


def test_rpo_variants_by_hand():
    """S = -6 over 3 tokens, β = 0.5, η = 0.2: ηβ·6 = 0.6; η·6/3 = 0.4; and a doubled answer."""
    policy, ref = pair(-6, -4), pair(-6, -4)
    base = math.log(2)
    assert rpo(policy, ref, (3.0,), beta=0.5, eta=0.2).losses.item() == pytest.approx(base + 0.6)
    mean = {"sft_reduction": "sequence_mean", "scale_by_beta": False, "beta": 0.5, "eta": 0.2}
    assert rpo(policy, ref, (3.0,), **mean).losses.item() == pytest.approx(base + 0.4)
    longer = pair(-12, -4)
    assert rpo(longer, longer, (6.0,), **mean).losses.item() == pytest.approx(base + 0.4)
    assert rpo(longer, longer, (6.0,), beta=0.5, eta=0.2).losses.item() == pytest.approx(base + 1.2)


def test_rpo_says_where_likelihood_dominates():
    """σ(-margin) < η: margin 6 gives .0025 < .005, margin 5 gives .0067."""
    policy = Pair(torch.tensor([6.0, 5.0]), torch.tensor([0.0, 0.0]))
    ref = Pair(torch.zeros(2), torch.zeros(2))
    result = rpo(policy, ref, (1.0, 1.0), beta=1.0)
    assert result.diagnostics["rpo/sft_dominates"].tolist() == [1.0, 0.0]


# --- properties: true of every input -----------------------------------------------------------


@given(logp, logp, beta_)
def test_policy_equal_to_reference_costs_log_2(chosen, rejected, beta):
    same = pair(chosen, rejected)
    assert dpo(same, same, beta).item() == pytest.approx(math.log(2))


@given(logp, logp, logp, logp, beta_, logp)
def test_a_prompt_only_shift_changes_nothing(pw, pl, rw, rl, beta, shift):
    """β log Z(x) cancels: adding one constant to both log-ratios must not move the loss."""
    a = dpo(pair(pw, pl), pair(rw, rl), beta)
    b = dpo(pair(pw + shift, pl + shift), pair(rw, rl), beta)
    assert_close(a, b, rtol=1e-7, atol=1e-9)


@given(logp, logp, logp, logp, beta_)
def test_swapping_the_answers_adds_the_margin(pw, pl, rw, rl, beta):
    margin = beta * ((pw - rw) - (pl - rl))
    plain, swapped = dpo(pair(pw, pl), pair(rw, rl), beta), dpo(pair(pl, pw), pair(rl, rw), beta)
    assert (swapped - plain).item() == pytest.approx(margin, abs=1e-9)


@given(logp, logp, logp, logp, beta_)
def test_smoothing_mixes_the_two_labels(pw, pl, rw, rl, beta):
    plain = dpo(pair(pw, pl), pair(rw, rl), beta)
    flipped = dpo(pair(pl, pw), pair(rl, rw), beta)
    assert_close(dpo(pair(pw, pl), pair(rw, rl), beta, label_smoothing=0.25), 0.75 * plain + 0.25 * flipped)


@pytest.mark.parametrize("margin", [-1e4, 1e4])
def test_extreme_margins_stay_finite(margin):
    policy = pair(margin, 0, requires_grad=True)
    out = dpo(policy, pair(0, 0), 1.0)
    out.sum().backward()
    assert out.isfinite().all()
    assert policy.chosen.grad.isfinite().all()


# --- masking -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_tokens_outside_the_mask_do_not_matter(seed):
    g = torch.Generator().manual_seed(seed)
    logps = -torch.rand(3, 6, generator=g)
    mask = torch.rand(3, 6, generator=g) < 0.5
    mask[:, 0] = True
    poisoned = logps.masked_fill(~mask, float("nan"))
    assert_close(sequence_logps(logps, mask), sequence_logps(poisoned, mask))


def test_sequence_logps_by_hand():
    mask = torch.tensor([[False, True, True], [True, False, False]])
    logps = torch.tensor([[-9.0, -1.0, -2.0], [-4.0, -9.0, -9.0]])
    assert_close(sequence_logps(logps, mask), torch.tensor([-3.0, -4.0]))


# --- refusals ----------------------------------------------------------------------------------


def test_empty_completion_is_refused():
    with pytest.raises(ValueError, match=r"rows \[1\] have no completion token"):
        sequence_logps(torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]))


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_beta_must_be_positive(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        implicit_rewards(pair(0, 0), beta=beta)


def test_reference_must_not_carry_gradient():
    with pytest.raises(ValueError, match="ref requires a gradient"):
        log_ratios(pair(0, 0), pair(0, 0, requires_grad=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dpo_loss(pair(0, 0), label_smoothing=0.5), "label_smoothing"),
        (lambda: rpo(pair(0, 0), pair(0, 0), eta=-0.1), "eta must not be negative"),
        (lambda: f_dpo_loss(pair(0, 0), beta=0.0, f=JS, beta_scaling="raw"), "beta must be positive"),
    ],
)
def test_ranges(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shapes_are_enforced_while_testing():
    with pytest.raises(TypeCheckError):
        dpo_loss(Pair(torch.zeros(2, 3), torch.zeros(2, 3)))
    with pytest.raises(TypeCheckError):
        sequence_logps(torch.zeros(4), torch.ones(4, 7, dtype=torch.bool))
