"""Losses that depend on a whole step: restated in plain floats, by hand, and at the extremes."""

import math

import oracles_pairwise as oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.losses import (
    Pair,
    aot_loss,
    aot_unpaired_loss,
    beta_dpo_loss,
    dpo_loss,
    dynamic_beta,
    filter_weights,
    implicit_rewards,
    log_ratios,
    partners,
    partners_in,
)

POLICY = Pair(torch.tensor([-5.0, -3.0, -4.0]).double(), torch.tensor([-6.0, -2.0, -7.0]).double())
REF = Pair(torch.tensor([-5.5, -3.9, -3.0]).double(), torch.tensor([-7.0, -1.5, -3.1]).double())
values = st.lists(st.floats(-9, 9), min_size=4, max_size=4)


def column(*values, **kw):
    return torch.tensor(values, dtype=torch.float64, **kw)


def paired(policy, ref, beta, **kw):
    gap, its = (beta * (side.chosen - side.rejected) for side in (policy, ref))
    return aot_loss(gap, partners(gap.detach(), its), **kw)


def unpaired(rewards, **kw):
    held = Pair(rewards.chosen.detach(), rewards.rejected.detach())
    matched = Pair(partners(held.rejected, held.chosen), partners(*held))
    return aot_unpaired_loss(rewards, matched, **kw)


def by_rank(policy, ref, smoothing):
    """Sorted against sorted, in plain floats."""
    margins = [a - b for a, b in zip(sorted(policy), sorted(ref), strict=True)]
    return sum(
        (1 - smoothing) * oracles.cross_entropy(1, m) + smoothing * oracles.cross_entropy(1, -m) for m in margins
    )


@given(values, values, st.floats(0, 0.4))
def test_aot_is_sorted_against_sorted(policy, ref, smoothing):
    got = aot_loss(column(*policy), partners(column(*policy), column(*ref)), label_smoothing=smoothing)
    assert got.sum().item() == pytest.approx(by_rank(policy, ref, smoothing), abs=1e-9)
    both = unpaired(Pair(column(*policy), column(*ref)), label_smoothing=smoothing)
    assert both.sum().item() == pytest.approx(by_rank(policy, ref, smoothing), abs=1e-9)


def test_aot_by_hand():
    """β = 0.5; TRL lists losses by rank, these stand at their pairs. Unpaired it is the cheapest matching."""
    assert sorted(paired(POLICY, REF, 0.5).tolist()) == pytest.approx([0.386871, 0.403186, 0.493249], abs=1e-6)
    rewards = implicit_rewards(log_ratios(POLICY, REF), beta=0.5)
    assert unpaired(rewards).mean().item() == pytest.approx((0.210723 + 0.474077 + 0.718460) / 3, abs=1e-6)
    assert dpo_loss(rewards).mean().item() == pytest.approx(0.479949, abs=1e-6)
    mixed = Pair(rewards.chosen, rewards.rejected[[2, 0, 1]])
    assert unpaired(mixed).mean().item() == pytest.approx(unpaired(rewards).mean().item(), abs=1e-12)


def test_gradients_are_those_of_the_sorted_samples():
    sides = column(0.3, -1.2, 0.7, 0.1), column(-0.4, 0.9, 0.2, -2.0)
    chosen, rejected = (side.clone().requires_grad_() for side in sides)
    dpo_loss(Pair(chosen.sort().values, rejected.sort().values)).sum().backward()
    ours = Pair(*(side.clone().requires_grad_() for side in sides))
    unpaired(ours).sum().backward()
    assert_close(ours.chosen.grad, chosen.grad)
    assert_close(ours.rejected.grad, rejected.grad)
    gap = sides[0].clone().requires_grad_()
    dpo_loss(Pair(gap.sort().values, sides[1].sort().values)).sum().backward()
    own = sides[0].clone().requires_grad_()
    aot_loss(own, partners(sides[0], sides[1])).sum().backward()
    assert_close(own.grad, gap.grad)


def test_ties_have_ranks_of_their_own_in_a_step_and_the_lowest_in_a_set():
    others = column(5.0, 1.0, 3.0)
    assert sorted(partners(column(2.0, 2.0, 0.0), others).tolist()) == [1.0, 3.0, 5.0]
    assert partners_in(column(2.0, 0.0), column(2.0, 2.0, 0.0), others).tolist() == [3.0, 1.0]
    assert partners_in(column(9.0), column(2.0, 2.0, 0.0), others).tolist() == [5.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_finite_and_rightly_signed_at_ten_thousand_nats(far, dtype):
    for chosen, rejected in ((far, 0.0), (0.0, -far)):
        rewards = Pair(*(torch.tensor([v], dtype=dtype, requires_grad=True) for v in (chosen, rejected)))
        for loss in (
            unpaired(rewards),
            aot_loss(rewards.chosen - rewards.rejected, torch.zeros(1, dtype=dtype)),
            beta_dpo_loss(rewards, torch.full((1,), 0.5, dtype=dtype)),
        ):
            slopes = torch.autograd.grad(loss.sum(), list(rewards))
            assert loss.isfinite().all()
            assert all(slope.isfinite() for slope in slopes)
            assert (slopes[0] < 0) == (far < 0)


@pytest.mark.parametrize("a", [0.0, 0.6])
def test_beta_dpo_by_hand(a):
    """Gaps 2, 0, 1 in the first step: M is 0.1, β 0.154; at a = 0 it is DPO."""
    ratio = Pair(column(2.5, -1.0, 1.2, requires_grad=True), column(0.5, -1.0, 0.2))
    beta = dynamic_beta(1.0, 0.1, beta=0.1, margin_weight=a)
    losses = beta_dpo_loss(ratio, torch.full_like(ratio.chosen, beta).detach())
    losses.sum().backward()
    if a:
        assert beta == pytest.approx(0.154)
        assert losses.tolist() == pytest.approx([0.550959, 0.693147, 0.619109], abs=1e-6)
        assert ratio.chosen.grad.tolist() == pytest.approx([-0.065235, -0.077, -0.071083], abs=1e-6)
    else:
        assert_close(losses, dpo_loss(implicit_rewards(ratio, beta=0.1)))


def test_dynamic_beta_has_a_floor_and_no_gradient():
    assert dynamic_beta(-35.0, -3.5, beta=0.1, margin_weight=0.6) == 1e-3
    assert math.isnan(dynamic_beta(math.nan, 0.0, beta=0.1, margin_weight=0.6))
    with pytest.raises(ValueError, match="beta requires a gradient"):
        beta_dpo_loss(Pair(column(1.0), column(0.0)), column(0.1, requires_grad=True))


def drawn(gaps, mean, deviation, ratio, seed=0):
    g = torch.Generator().manual_seed(seed)
    return filter_weights(gaps, mean, deviation, ratio=ratio, generator=g)


def test_the_filter_draws_without_replacement_by_the_gaps_density():
    """One of three left out: the chance that a pair is kept, from the two draws by hand."""
    gaps = column(0.0, 1.0, 2.5)
    weight = [math.exp(-((d - 0.5) ** 2) / 2) for d in gaps.tolist()]
    total = sum(weight)
    stays = [
        weight[i] / total + sum(weight[j] / total * weight[i] / (total - weight[j]) for j in range(3) if j != i)
        for i in range(3)
    ]
    found = torch.stack([drawn(gaps, 0.5, 1.0, 0.3, seed) for seed in range(4000)])
    assert set(found.unique().tolist()) == {0.0, 1.5}
    assert (found > 0).double().mean(0).tolist() == pytest.approx(stays, abs=0.03)


@pytest.mark.parametrize("n", [1, 5, 10])
def test_the_filter_keeps_the_share_that_is_asked_for_and_the_mean_weight_is_1(n):
    found = drawn(torch.arange(float(n)), 0.0, 1.0, 0.2)
    assert int((found > 0).sum()) == max(1, math.floor(0.8 * n + 1e-9))
    assert found.mean().item() == pytest.approx(1.0)
    assert drawn(torch.arange(float(n)), 0.0, 1.0, 0.0).tolist() == [1.0] * n


def test_the_filter_does_not_depend_on_the_order_and_stands_extremes():
    gaps = torch.randn(12, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([5, 2, 7, 0, 11, 1, 6, 3, 4, 10, 8, 9])
    assert_close(drawn(gaps[order], 0.1, 0.5, 0.4), drawn(gaps, 0.1, 0.5, 0.4)[order])
    for far in (gaps * 1e4, torch.zeros(12), gaps.bfloat16() * 1e4):
        found = drawn(far, 0.0, 0.0, 0.5)
        assert sorted(found.tolist()) == [0.0] * 6 + [2.0] * 6
    firsts = {tuple(drawn(torch.zeros(12), 0.0, 0.0, 0.5, seed).tolist()) for seed in range(5)}
    assert len(firsts) > 1  # where all gaps are the same, chance alone decides
