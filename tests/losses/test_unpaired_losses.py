"""The losses of KTO and BCO: restated in plain floats, by hand, at the extremes, and on a table."""

import math

import oracles_pairwise as oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.losses import Pair, apo_zero_loss, bco_loss, bco_pair_loss, class_weights, kto_baseline, kto_loss


def column(*values, **kw):
    return torch.tensor(values, dtype=torch.float64, **kw)


@given(st.floats(-8, 8), st.floats(0, 4), st.floats(0.2, 3), st.floats(0.2, 3))
def test_kto_in_plain_floats(reward, z, good, bad):
    got = kto_loss(
        column(reward, reward), torch.tensor([True, False]), column(z)[0], desirable_weight=good, undesirable_weight=bad
    )
    values = [good * (1 - oracles.sigmoid(reward - z)), bad * (1 - oracles.sigmoid(z - reward))]
    assert got.tolist() == pytest.approx(values, abs=1e-9)


def test_kto_by_hand():
    """β = 0.1, log-ratios 1.2, -0.7 and 0.3 around 0.25; the slope by the log-ratio is -0.0249437."""
    ratio = column(1.2, -0.7, 0.3).requires_grad_()
    losses = kto_loss(0.1 * ratio, torch.tensor([True, False, False]), column(0.025)[0])
    assert losses.tolist() == pytest.approx([0.476268, 0.476268, 0.501250], abs=1e-6)
    losses[0].backward()
    assert ratio.grad[0].item() == pytest.approx(-0.0249437, abs=1e-7)


def test_the_baseline_is_a_mean_over_the_step_and_not_negative():
    """Rank means 0.25 and -1 of one row each are added up before they are held at 0."""
    assert kto_baseline(column(0.25 - 1.0)[0], column(2.0)[0]).item() == 0.0
    assert kto_baseline(column(3.0)[0], column(4.0)[0]).item() == 0.75
    with pytest.raises(ValueError, match="baseline requires a gradient"):
        kto_loss(column(0.0), torch.tensor([True]), column(0.0, requires_grad=True)[0])


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_at_a_baseline_of_zero_both_answers_are_apo_zero(r_w, r_l):
    both = kto_loss(column(r_w, r_l), torch.tensor([True, False]), column(0.0)[0]).sum()
    assert both.item() == pytest.approx(apo_zero_loss(Pair(column(r_w), column(r_l))).item(), abs=1e-12)


@given(st.floats(-8, 8), st.floats(-4, 4))
def test_bco_is_cross_entropy_of_a_shifted_reward(reward, delta):
    got = bco_loss(column(reward, reward), torch.tensor([True, False]), column(delta)[0])
    assert got.tolist() == pytest.approx([oracles.cross_entropy(label, reward - delta) for label in (1, 0)], abs=1e-9)


def test_bco_by_hand():
    """β = 0.1, log-ratios 1.2 and -0.7, δ = 0.03; without δ it is the pair's loss."""
    rewards, labels = column(0.12, -0.07), torch.tensor([True, False])
    assert bco_loss(rewards, labels, column(0.03)[0]).tolist() == pytest.approx([0.649159, 0.644397], abs=1e-6)
    pair = bco_pair_loss(Pair(rewards[:1], rewards[1:]))
    assert bco_loss(rewards, labels, column(0.0)[0]).sum().item() == pytest.approx(pair.item(), abs=1e-12)
    with pytest.raises(ValueError, match="shift requires a gradient"):
        bco_loss(rewards, labels, column(0.0, requires_grad=True)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bco_is_finite_at_ten_thousand_nats(dtype):
    rewards = torch.tensor([-1e4, 1e4, -1e4, 1e4], dtype=dtype, requires_grad=True)
    losses = bco_loss(rewards, torch.tensor([True, True, False, False]), torch.zeros((), dtype=dtype))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([1e4, 0.0, 0.0, 1e4], rel=2e-3)
    assert rewards.grad.tolist() == [-1.0, 0.0, 0.0, 1.0]


def test_bco_rests_at_the_tilted_reference_where_its_shift_is_the_mean_reward():
    """Labels drawn with probability σ(R), R of mean 0: π_ref e^(R/β)/Z, and δ = -β log Z."""
    scores = [r - (-0.16) for r in (1.0, 0.4, -0.2, -0.7, -1.3)]
    ref, share = column(0.35, 0.25, 0.2, 0.12, 0.08), column(*map(oracles.sigmoid, scores))
    shift = torch.zeros((), dtype=torch.float64)
    for _ in range(60):  # δ follows the policy, as a running mean does

        def population(logps, shift=shift):
            rewards = 0.5 * (logps - ref.log())
            good = bco_loss(rewards, torch.ones(5, dtype=torch.bool), shift)
            return (share * good + (1 - share) * bco_loss(rewards, torch.zeros(5, dtype=torch.bool), shift)).sum()

        policy = column(*oracles.minimise(population, ref.log().tolist()))
        shift = (0.5 * (policy.log() - ref.log())).mean()
    assert policy.tolist() == pytest.approx(oracles.tilted(ref.tolist(), [r / 0.5 for r in scores]), abs=1e-5)
    assert shift.item() == pytest.approx(-0.758799, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_at_ten_thousand_nats(dtype):
    rewards = torch.tensor([-1e4, 1e4, -1e4, 1e4], dtype=dtype, requires_grad=True)
    losses = kto_loss(rewards, torch.tensor([True, True, False, False]), torch.zeros((), dtype=dtype))
    losses.sum().backward()
    assert losses.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert rewards.grad.isfinite().all()


@pytest.mark.parametrize(
    ("weight", "expected"), [(1.0, (0.653014, 0.346986, 0, 0, 0)), (1.5, (0.809762, 0.190238, 0, 0, 0))]
)
def test_mass_stays_where_labels_outweigh(weight, expected):
    """Each answer is desirable with probability σ(R); where λ_D q < λ_U (1 - q) it loses all."""
    scores = [r - (-0.16) for r in (1.0, 0.4, -0.2, -0.7, -1.3)]
    ref, share = column(0.35, 0.25, 0.2, 0.12, 0.08), column(*map(oracles.sigmoid, scores))

    def population(logps):
        rewards = 0.5 * (logps - ref.log())
        good, bad = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
        zero = column(0.0)[0]
        losses = share * kto_loss(rewards, good, zero)
        return (losses + (1 - share) * kto_loss(rewards, bad, zero, undesirable_weight=weight)).sum()

    assert oracles.minimise(population, ref.log().tolist()) == pytest.approx(expected, abs=1e-3)


def test_weights_make_the_classes_equal():
    assert class_weights(6, 2) == (1.0, 3.0)
    assert class_weights(1, 4) == (4.0, 1.0)
    assert math.prod(class_weights(5, 5)) == 1.0
    with pytest.raises(ValueError, match="rows of both labels are needed, got 3 desirable and 0 undesirable"):
        class_weights(3, 0)
