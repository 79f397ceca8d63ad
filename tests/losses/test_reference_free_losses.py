"""Losses without a reference: odds ratio, CPO, SLiC; restated, by hand, and on tables."""

import itertools
import math

import oracles_pairwise as oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.losses import Pair, PairBatch, log_odds, odds_ratio_loss, pairwise_loss

R = (1.0, 0.4, -0.2, -0.7, -1.3)
BETA = 0.5
WON = [[oracles.sigmoid(a - b) for b in R] for a in R]


def column(*values, **kw):
    return torch.tensor(values, dtype=torch.float64, **kw)


def trained(objective, beta):
    """The policy that minimises Σ P(i beats j) · loss(i, j) over ordered pairs of answers of one token."""
    pairs = list(itertools.permutations(range(5), 2))
    weight = column(*(WON[i][j] for i, j in pairs)) / 10
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
    one, ref = torch.ones(20, dtype=torch.float64), column(0.9, 0.025, 0.025, 0.025, 0.025).log()

    def population(logps):
        made = PairBatch(Pair(logps[chosen], logps[rejected]), Pair(ref[chosen], ref[rejected]), Pair(one, one), {})
        return (weight * pairwise_loss(made, objective, beta=beta, label_smoothing=0.0).losses).sum()

    return oracles.minimise(population, [math.log(0.2)] * 5)


@given(st.floats(-30, -0.01))
def test_log_odds_in_plain_floats(mean):
    p = math.exp(mean)
    assert log_odds(column(mean)).item() == pytest.approx(math.log(p / (1 - p)), rel=1e-9, abs=1e-9)


def test_log_odds_are_finite_with_a_slope_up_to_certainty():
    """20.723266 at -10⁻⁹; at 0 and above along the tangent; -10⁴ is itself. Also in float32 and from bfloat16."""
    assert log_odds(column(-1e-9)).item() == pytest.approx(20.723266, abs=1e-5)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        means = torch.tensor([-1e4, -0.7, -0.6, 0.0, 1e4], dtype=dtype, requires_grad=True)
        values = log_odds(means)
        values.sum().backward()
        assert values.isfinite().all()
        assert means.grad.isfinite().all()
        assert (means.grad > 0).all()
        assert values[0].item() == means[0].item()
    either = column(-math.log(2) - 1e-12, -math.log(2) + 1e-12)
    assert log_odds(either).tolist() == pytest.approx([0.0, 0.0], abs=1e-11)
    assert torch.autograd.gradcheck(log_odds, column(-3.0, -0.8, -0.5, -0.01, requires_grad=True))


def test_orpo_by_hand():
    """Means -0.5 and -1.2: log odds ratio 1.274370; with λ = 0.1 and the likelihood 0.524655."""
    means = Pair(column(-0.5), column(-1.2))
    assert (log_odds(means.chosen) - log_odds(means.rejected)).item() == pytest.approx(1.274370, abs=1e-6)
    assert 0.5 + odds_ratio_loss(means, beta=0.1).item() == pytest.approx(0.524655, abs=1e-6)
    sums = PairBatch(
        Pair(column(-2.0), column(-2.4)), Pair(column(-9.0), column(-1.0)), Pair(column(4.0), column(2.0)), {}
    )
    got = pairwise_loss(sums, {"odds_ratio": 1.0, "nll": 1.0}, beta=0.1)
    assert got.losses.item() == pytest.approx(0.524655, abs=1e-6)
    assert got.rewards.chosen.item() == pytest.approx(-0.05)


def test_cpo_and_slic_by_hand():
    """Sums -6 of 4 tokens and -7.5, β = 0.1: 0.620957 and a likelihood of 1.5; a hinge of 0.85. δ = 10 is SLiC-HF's."""
    made = PairBatch(
        Pair(column(-6.0), column(-7.5)), Pair(column(-1.0), column(-9.0)), Pair(column(4.0), column(3.0)), {}
    )
    got = pairwise_loss(made, {"cpo": 1.0, "nll": 1.0}, beta=0.1, label_smoothing=0.0)
    assert got.components["cpo"].item() == pytest.approx(0.620957, abs=1e-6)
    assert got.losses.item() == pytest.approx(2.120957, abs=1e-6)
    smoothed = pairwise_loss(made, {"cpo": 1.0}, beta=0.1, label_smoothing=0.2)
    assert smoothed.losses.item() == pytest.approx(oracles.cross_entropy(0.8, 0.15))
    slic = pairwise_loss(made, {"slic": 1.0}, beta=0.1)
    assert 10 * slic.losses.item() == pytest.approx(max(0.0, 10 + 6.0 - 7.5))


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.1, (0.321589, 0.260557, 0.194268, 0.140330, 0.083255)),
        (5.0, (0.377051, 0.266262, 0.174018, 0.115633, 0.067037)),
    ],
)
def test_orpo_leans_from_the_share_of_wins(weight, expected):
    """λ → 0 is the likelihood's (.316859, .259579, …); the reference, which is far away, has no part in it."""
    assert trained({"odds_ratio": 1.0, "nll": 1.0}, weight) == pytest.approx(expected, abs=2e-6)


def test_cpo_alone_is_dpo_from_a_uniform_reference():
    assert trained({"cpo": 1.0}, BETA) == pytest.approx((0.696700, 0.209842, 0.063203, 0.023251, 0.007003), abs=2e-6)
    both = (0.352965, 0.274544, 0.190100, 0.123549, 0.058842)
    assert trained({"cpo": 1.0, "nll": 1.0}, BETA) == pytest.approx(both, abs=2e-6)


def test_the_weight_must_be_positive():
    with pytest.raises(ValueError, match=r"beta must be positive, got 0\.0"):
        odds_ratio_loss(Pair(column(-1.0), column(-1.0)), beta=0.0)
