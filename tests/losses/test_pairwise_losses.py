"""Every pairwise formula against its paper restated in plain floats, and the identities that tie them together."""

import math

import oracles_pairwise as oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.losses import (
    Pair,
    copg_group_loss,
    copg_loss,
    discopop_loss,
    dno_loss,
    dpo_loss,
    exo_pair_loss,
    hinge_loss,
    implicit_rewards,
    ipo_loss,
    ipo_mean_loss,
    margin_dpo_loss,
    modpo_loss,
    nll_loss,
    per_token,
    reward_aware_rpo_loss,
    robust_dpo_loss,
    rpo_loss,
    simpo_loss,
    soft_dpo_loss,
    wpo_weights,
)

reward = st.floats(-8, 8)
share = st.floats(0.02, 0.98)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def pair(chosen, rejected):
    return Pair(column(chosen), column(rejected))


# --- the papers, restated ----------------------------------------------------------------------


@given(reward, reward, st.floats(0, 0.45))
def test_robust_dpo_is_unbiased_under_flips(r_w, r_l, flips):
    """Labels right with probability 1 - ε and flipped with ε: on average DPO's loss of the right label."""
    right = robust_dpo_loss(pair(r_w, r_l), label_smoothing=flips).item()
    flipped = robust_dpo_loss(pair(r_l, r_w), label_smoothing=flips).item()
    assert (1 - flips) * right + flips * flipped == pytest.approx(oracles.cross_entropy(1, r_w - r_l), abs=1e-9)


def test_robust_dpo_by_hand():
    """ε = 0.1, margin 2: (0.9 · 0.126928 - 0.1 · 2.126928) / 0.8."""
    got = robust_dpo_loss(pair(1.5, -0.5), label_smoothing=0.1)
    assert got.item() == pytest.approx((0.9 * 0.1269280 - 0.1 * 2.1269280) / 0.8, abs=1e-6)
    assert robust_dpo_loss(pair(2.0, 0.0), label_smoothing=0.0).item() == dpo_loss(pair(2.0, 0.0)).item()


@given(reward, reward, share)
def test_soft_labels_are_cross_entropy(r_w, r_l, preference):
    got = soft_dpo_loss(pair(r_w, r_l), column(preference))
    assert got.item() == pytest.approx(oracles.cross_entropy(preference, r_w - r_l), abs=1e-9)


@given(reward, reward)
def test_soft_labels_of_one_are_dpo_and_less_are_conservative_dpo(r_w, r_l):
    rewards = pair(r_w, r_l)
    assert soft_dpo_loss(rewards, column(1.0)).item() == pytest.approx(dpo_loss(rewards).item(), abs=1e-12)
    smoothed = dpo_loss(rewards, label_smoothing=0.2)
    assert soft_dpo_loss(rewards, column(0.8)).item() == pytest.approx(smoothed.item(), abs=1e-12)


@given(reward, reward, reward, reward)
def test_dno_regresses_on_the_sigmoid_of_the_score_gap(r_w, r_l, s_w, s_l):
    got = dno_loss(pair(r_w, r_l), pair(s_w, s_l))
    assert got.item() == pytest.approx(oracles.cross_entropy(oracles.sigmoid(s_w - s_l), r_w - r_l), abs=1e-8)


@given(reward, reward, st.floats(0, 5), st.floats(0.01, 2), st.floats(0.01, 1))
def test_reverse_po_asks_for_the_gap(d_w, d_l, gap, gamma, beta):
    """The authors' formula, on log-ratios: -log σ(β (D - γ g))."""
    got = margin_dpo_loss(pair(beta * d_w, beta * d_l), column(gap), beta=beta, gamma=gamma)
    assert got.item() == pytest.approx(oracles.cross_entropy(1, beta * ((d_w - d_l) - gamma * gap)), abs=1e-9)


@given(reward, reward, st.floats(-4, 4), st.floats(-4, 4), st.floats(0.1, 1))
def test_reward_aware_rpo_is_the_kl_from_the_wanted_law(r_w, r_l, s_w, s_l, eta):
    got = reward_aware_rpo_loss(pair(r_w, r_l), pair(s_w, s_l), eta=eta).item()
    wanted, margin = oracles.sigmoid(eta * (s_w - s_l)), oracles.sigmoid(r_w - r_l)
    assert got == pytest.approx(oracles.bernoulli_kl(wanted, margin), abs=1e-8)


def test_reward_aware_rpo_golden_zero_and_limit():
    """Margin 0.19 against a gap of 1: 0.0715486705; equal gaps cost nothing; a huge gap is DPO."""
    assert reward_aware_rpo_loss(pair(0.19, 0.0), pair(1.0, 0.0), eta=1.0).item() == pytest.approx(0.0715486705)
    assert reward_aware_rpo_loss(pair(0.6, 0.1), pair(2.0, 1.0), eta=0.5).item() == 0.0
    limit = reward_aware_rpo_loss(pair(0.19, 0.0), pair(500.0, 0.0), eta=1.0).item()
    assert limit == pytest.approx(0.602652909, abs=1e-9)


def test_ipo_by_hand_summed_and_length_mean():
    """β = 0.25 aims at 2. Log-ratios 6 and -3: (9 - 2)² = 49; over 3 and 2 tokens: (2 + 1.5 - 2)² = 2.25."""
    log_ratio, tokens = pair(6.0, -3.0), pair(3.0, 2.0)
    assert ipo_loss(log_ratio, beta=0.25).item() == pytest.approx(49.0)
    assert ipo_mean_loss(log_ratio, tokens, beta=0.25).item() == pytest.approx(2.25)
    assert per_token(log_ratio, tokens).rejected.item() == -1.5


def test_copg_by_hand():
    """Margin 3 against a score gap of 1.5; called the other way round it is the same."""
    assert copg_loss(pair(2.0, -1.0), pair(1.0, -0.5)).item() == pytest.approx(2.25)
    assert copg_loss(pair(-1.0, 2.0), pair(-0.5, 1.0)).item() == pytest.approx(2.25)


@given(st.floats(-3, 3), st.floats(-0.5, 3))
def test_discopop_equals_equation_5(level, margin):
    got = discopop_loss(pair(level + margin, level), tau=0.05)
    assert got.item() == pytest.approx(oracles.discopop(margin), rel=1e-7)


def test_simpo_by_hand():
    """β = 2: means -1 and -2 give a margin of 2, less γ = 0.5."""
    rewards = implicit_rewards(per_token(pair(-4.0, -4.0), pair(4.0, 2.0)), beta=2.0)
    assert rewards.chosen.item() == -2.0
    assert simpo_loss(rewards, gamma=0.5).item() == pytest.approx(oracles.cross_entropy(1, 1.5))


def test_hinge_by_hand():
    """β = 0.1: D of 5 costs one half, and of 11 nothing and has no slope."""
    r_w = column(0.5, 1.1).requires_grad_()
    losses = hinge_loss(Pair(r_w, torch.zeros_like(r_w)))
    assert losses.tolist() == pytest.approx([0.5, 0.0])
    losses.sum().backward()
    assert r_w.grad.tolist() == [-1.0, 0.0]


@given(reward, reward, st.floats(0.001, 0.4))
def test_exo_is_the_reverse_kl_of_the_pair(r_w, r_l, epsilon):
    got = exo_pair_loss(pair(r_w, r_l), label_smoothing=epsilon).item()
    assert got == pytest.approx(oracles.bernoulli_kl(oracles.sigmoid(r_w - r_l), 1 - epsilon), abs=1e-7)


def test_exo_by_hand():
    """z = 0.19, ε = 0.001: 2.438635. At rest at logit(1 - ε); far wrong, hardly a slope."""
    assert exo_pair_loss(pair(0.19, 0.0), label_smoothing=1e-3).item() == pytest.approx(2.438635, abs=1e-6)
    z = column(6.906755, -20.0).requires_grad_()
    exo_pair_loss(Pair(z, torch.zeros_like(z)), label_smoothing=1e-3).sum().backward()
    assert z.grad.tolist() == pytest.approx([0.0, -5.5e-8], abs=1e-9)


@given(reward, reward, st.floats(-3, 3), st.floats(0.7, 1))
def test_modpo_in_plain_floats(r_w, r_l, gap, weight):
    got = modpo_loss(pair(r_w, r_l), column(gap), weight=weight).item()
    assert got == pytest.approx(oracles.cross_entropy(1, ((r_w - r_l) - (1 - weight) * gap) / weight), abs=1e-6)


def test_modpo_by_hand():
    """Margin 0.19, Δm 0.7, weights 0.4 and 0.6; weight 1 is DPO; it is Reverse PO's margin at other scales."""
    assert modpo_loss(pair(0.19, 0.0), column(0.7), weight=0.4).item() == pytest.approx(1.021418, abs=1e-6)
    assert modpo_loss(pair(0.19, 0.0), column(0.7), weight=1.0).item() == dpo_loss(pair(0.19, 0.0)).item()
    same = margin_dpo_loss(pair(0.19 / 0.4, 0.0), column(0.7), beta=1.0, gamma=0.6 / 0.4)
    assert modpo_loss(pair(0.19, 0.0), column(0.7), weight=0.4).item() == pytest.approx(same.item(), abs=1e-9)


def test_irpo_weighs_sequences_alike():
    """Answers of 2 and 8 tokens at 1 and 3 nats a token: 2.0; the mean over the batch's tokens, TRL's, is 2.6."""
    logps, tokens = column(-2.0, -24.0), column(2.0, 8.0)
    assert nll_loss(logps, tokens).mean().item() == pytest.approx(2.0)
    assert (-logps.sum() / tokens.sum()).item() == pytest.approx(2.6)


def test_wpo_weights_from_whole_distributions():
    rows = [[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.1, 0.1, 0.8]]
    tokens = [0, 2, 1]
    probs = column(*rows)
    picked = probs[torch.arange(3), torch.tensor(tokens)].log()
    squares = probs.square().sum(dim=1).log()
    logps = torch.stack([picked, picked]).requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    got = wpo_weights(logps, torch.stack([squares, squares]), mask)
    assert got.tolist() == pytest.approx([oracles.wpo(rows, tokens), oracles.wpo(rows[:2], tokens[:2])])
    assert not got.requires_grad
    poisoned = logps.masked_fill(~mask, float("nan"))
    assert_close(wpo_weights(poisoned, torch.stack([squares, squares]), mask), got)


# --- identities --------------------------------------------------------------------------------


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.05, 2))
def test_copg_with_a_gap_of_one_half_is_beta_squared_ipo(a, b, beta):
    copg = copg_loss(implicit_rewards(pair(a, b), beta=beta), pair(1.0, 0.5))
    assert copg.item() == pytest.approx(beta**2 * ipo_loss(pair(a, b), beta=beta).item(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_copg_of_k_is_its_pairs_weighted_by_one_over_k_less_one(k):
    g = torch.Generator().manual_seed(k)
    rewards, scores = torch.randn(2, 4, k, generator=g, dtype=torch.float64)
    total = torch.zeros(4, dtype=torch.float64)
    for i in range(k):
        for j in range(i):
            total += copg_loss(Pair(rewards[:, i], rewards[:, j]), Pair(scores[:, i], scores[:, j])) / (k - 1)
    assert_close(copg_group_loss(rewards, scores), total)


def test_copg_of_k_has_the_gradient_of_leave_one_out_reinforce():
    g = torch.Generator().manual_seed(1)
    beta, picked = 0.7, [0, 2, 3, 3]
    logits, ref, scores = torch.randn(3, 5, generator=g, dtype=torch.float64)
    logits.requires_grad_()
    log_ratio = (logits.log_softmax(0) - ref.log_softmax(0))[picked]
    rewards = implicit_rewards(Pair(log_ratio, log_ratio), beta=beta).chosen
    (got,) = torch.autograd.grad(copg_group_loss(rewards[None], scores[picked][None]).sum(), logits, retain_graph=True)
    advantage = oracles.leave_one_out((scores[picked] - rewards.detach()).tolist())
    surrogate = (-2 * beta * column(*advantage) * logits.log_softmax(0)[picked]).sum()
    (expected,) = torch.autograd.grad(surrogate, logits)
    assert_close(got, expected)


@given(reward, reward, st.floats(-40, -1), st.integers(1, 20), st.floats(0.05, 2))
def test_irpo_is_the_second_variant_of_rpo(r_w, r_l, logp, tokens, weight):
    rewards, logps, count = pair(r_w, r_l), column(logp), column(float(tokens))
    rpo = rpo_loss(rewards, logps, count, beta=0.1, eta=weight, sft_reduction="sequence_mean", scale_by_beta=False)
    assert_close(dpo_loss(rewards) + weight * nll_loss(logps, count), rpo.losses)


def test_discopop_begins_by_lowering_margins():
    """f(0) = (log 2 + 1)/2, slope +0.78 there; stationary at -0.1185 and 0.0720, rising in between."""
    x = column(0.0, -0.1185, 0.0720, -0.05, -0.2, 0.2).requires_grad_()
    losses = discopop_loss(Pair(x, torch.zeros_like(x)), tau=0.05)
    assert losses[0].item() == pytest.approx((math.log(2) + 1) / 2)
    losses.sum().backward()
    assert x.grad[0].item() == pytest.approx(0.784, abs=2e-3)
    assert x.grad[1:3].abs().max() < 1e-2
    assert [value > 0 for value in x.grad[3:].tolist()] == [True, False, False]


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robust_dpo_loss(pair(0, 0), label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        (lambda: robust_dpo_loss(pair(0, 0), label_smoothing=-0.1), r"label_smoothing must be in \[0, 0.5\)"),
        (lambda: ipo_loss(pair(0, 0), beta=0.0), "beta must be positive, got 0.0"),
        (lambda: ipo_mean_loss(pair(0, 0), pair(1, 1), beta=-1.0), "beta must be positive"),
        (lambda: exo_pair_loss(pair(0, 0), label_smoothing=0.0), r"label_smoothing must be in \(0, 0.5\), got 0.0"),
        (lambda: modpo_loss(pair(0, 0), column(0.0), weight=0.0), r"weight must be in \(0, 1\], got 0.0"),
        (lambda: discopop_loss(pair(0, 0), tau=0.0), r"tau must be in \(0, 1\], got 0.0"),
        (lambda: discopop_loss(pair(0, 0), tau=1.5), r"tau must be in \(0, 1\], got 1.5"),
        (lambda: copg_group_loss(torch.zeros(2, 1), torch.zeros(2, 1)), "at least two completions"),
    ],
)
def test_ranges(call, message):
    with pytest.raises(ValueError, match=message):
        call()
