"""Losses that hold each answer to the reference: restated in plain floats, by hand, at the extremes, and on tables."""

import itertools
import math

import oracles_pairwise as oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.losses import (
    OBJECTIVES,
    Pair,
    PairBatch,
    apo_down_loss,
    apo_zero_loss,
    bco_pair_loss,
    cal_dpo_loss,
    dpo_loss,
    nca_pair_loss,
    pairwise_loss,
    sppo_hard_loss,
)

ANCHORED = ("nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "cal_dpo")
R = (1.0, 0.4, -0.2, -0.7, -1.3)
CENTRED = [r - sum(R) / 5 for r in R]
REF = (0.35, 0.25, 0.2, 0.12, 0.08)
BETA = 0.5
WON = [[oracles.sigmoid(a - b) for b in R] for a in R]
SHARE = [sum(p for j, p in enumerate(row) if j != i) / 4 for i, row in enumerate(WON)]
"""q: the share of its pairs that an answer wins."""
reward = st.floats(-8, 8)
HAND = (0.12, -0.07)
"""Rewards of ρ = 1.2 and -0.7 at β = 0.1."""


def pair(chosen, rejected, **kw):
    return Pair(*(torch.tensor([value], dtype=torch.float64, **kw) for value in (chosen, rejected)))


def slopes(loss, chosen, rejected):
    """Of the loss, by each side's log-ratio or reward."""
    at = pair(chosen, rejected, requires_grad=True)
    loss(at).sum().backward()
    return at.chosen.grad.item(), at.rejected.grad.item()


# --- the papers, restated ----------------------------------------------------------------------


@given(reward, reward)
def test_each_formula_in_plain_floats(r_w, r_l):
    up, down = oracles.sigmoid(r_w), oracles.sigmoid(r_l)
    at = pair(r_w, r_l)
    nca = -math.log(up) - 0.5 * math.log(1 - up) - 0.5 * math.log(1 - down)
    assert nca_pair_loss(at).item() == pytest.approx(nca, abs=1e-8)
    bco = oracles.cross_entropy(1, r_w) + oracles.cross_entropy(0, r_l)
    assert bco_pair_loss(at).item() == pytest.approx(bco, abs=1e-8)
    assert apo_zero_loss(at).item() == pytest.approx(1 - up + down, abs=1e-9)
    assert apo_down_loss(at).item() == pytest.approx(up + 1 - oracles.sigmoid(r_w - r_l), abs=1e-9)


@given(reward, reward, st.floats(0.05, 2))
def test_squares_in_plain_floats(ratio_w, ratio_l, beta):
    aim = 0.5 / beta
    square = ratio_w**2 - 2 * aim * ratio_w + ratio_l**2 + 2 * aim * ratio_l + 2 * aim**2
    assert sppo_hard_loss(pair(ratio_w, ratio_l), beta=beta).item() == pytest.approx(square, rel=1e-9, abs=1e-9)
    calibrated = oracles.cross_entropy(1, ratio_w - ratio_l) + square / 2
    assert cal_dpo_loss(pair(ratio_w, ratio_l), beta=beta).item() == pytest.approx(calibrated, rel=1e-7, abs=1e-7)


def test_by_hand():
    """Values and slopes by the log-ratio at ρ = 1.2 and -0.7, β = 0.1."""
    at = pair(*HAND)
    assert nca_pair_loss(at).item() == pytest.approx(1.341799, abs=1e-6)
    assert apo_zero_loss(at).item() == pytest.approx(0.952543, abs=1e-6)
    assert apo_down_loss(at).item() == pytest.approx(0.982606, abs=1e-6)
    assert sppo_hard_loss(pair(1.2, -0.7), beta=0.1).item() == pytest.approx(32.93)
    assert cal_dpo_loss(pair(1.2, -0.7), beta=0.5).item() == pytest.approx(0.204387, abs=1e-6)
    expected = {
        nca_pair_loss: (-0.020505, 0.024125),
        apo_zero_loss: (-0.024910, 0.024969),
        apo_down_loss: (0.000134, 0.024776),
    }
    for loss, wanted in expected.items():
        assert [0.1 * s for s in slopes(loss, *HAND)] == pytest.approx(wanted, abs=1e-6)


def test_first_steps_and_points_of_rest():
    """`down` leaves the chosen answer alone at first; NCA's chosen reward rests at log 2; Cal-DPO's pair at ±1.099788."""
    assert slopes(apo_zero_loss, 0.0, 0.0) == pytest.approx((-0.25, 0.25))
    assert slopes(apo_down_loss, 0.0, 0.0) == pytest.approx((0.0, 0.25))
    for rejected in (-5.0, 0.0, 5.0):
        assert slopes(nca_pair_loss, math.log(2), rejected)[0] == pytest.approx(0.0, abs=1e-12)
    rest = slopes(lambda at: cal_dpo_loss(at, beta=0.5), 1.099788, -1.099788)
    assert rest == pytest.approx((0.0, 0.0), abs=1e-5)


def test_cal_dpo_is_dpo_at_beta_one_and_half_of_sppo():
    at = pair(1.2, -0.7)
    together = dpo_loss(at) + 0.5 * sppo_hard_loss(at, beta=0.3)
    assert cal_dpo_loss(at, beta=0.3).item() == pytest.approx(together.item(), abs=1e-12)


@pytest.mark.parametrize("loss", [sppo_hard_loss, cal_dpo_loss])
def test_beta_must_be_positive(loss):
    with pytest.raises(ValueError, match=r"beta must be positive, got 0\.0"):
        loss(pair(0, 0), beta=0.0)


# --- extremes ----------------------------------------------------------------------------------

DOWN = ("apo_down",)  # lowers the chosen answer too
BOUNDED = ("apo_zero", "apo_down")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ANCHORED)
def test_finite_and_rightly_signed_at_ten_thousand_nats(name, dtype):
    """Far below what is wanted an answer is pushed up, far above it down; bounded losses are flat there, not NaN."""
    for chosen, rejected in itertools.product((-1e4, 0.0, 1e4), repeat=2):
        policy = Pair(*(torch.tensor([v], dtype=dtype, requires_grad=True) for v in (chosen, rejected)))
        ref = Pair(*(torch.zeros(1, dtype=dtype) for _ in range(2)))
        value = pairwise_loss(PairBatch(policy, ref, ref, {}), {name: 1.0}, beta=1.0).losses
        value.sum().backward()
        up, down = policy.chosen.grad.item(), policy.rejected.grad.item()
        assert value.isfinite().all()
        assert math.isfinite(up)
        assert math.isfinite(down)
        if name in BOUNDED:
            assert down >= 0
            assert up <= 0 or name in DOWN
        else:
            assert up < 0 or chosen > -1e4
            assert down > 0 or rejected < 1e4


# --- tables ------------------------------------------------------------------------------------


def trained(objective, *, free=False, beta=BETA):
    """Log-ratios that minimise Σ P(i beats j) · loss(i, j) over ordered pairs: of a policy, or without normalisation."""
    pairs = list(itertools.permutations(range(5), 2))
    weight = torch.tensor([WON[i][j] for i, j in pairs], dtype=torch.float64)
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
    ref = torch.tensor(REF, dtype=torch.float64).log()

    def population(logps):
        ratio = logps - ref
        return (weight * objective(Pair(ratio[chosen], ratio[rejected]))).sum()

    if not free:
        return oracles.minimise(population, ref.tolist())
    values = ref.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [values], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = population(values)
        loss.backward()
        return loss

    optimiser.step(closure)
    return (values.detach() - ref).tolist()


def scaled(ratio):
    return Pair(BETA * ratio.chosen, BETA * ratio.rejected)


def test_free_rewards_rest_where_the_share_of_wins_says():
    """NCA at r = log 2q, the pair's BCO at logit q, SPPO at ρ = (q - ½)/β."""
    nca = [BETA * r for r in trained(lambda ratio: nca_pair_loss(scaled(ratio)), free=True)]
    assert nca == pytest.approx([math.log(2 * q) for q in SHARE], abs=1e-6)
    bco = [BETA * r for r in trained(lambda ratio: bco_pair_loss(scaled(ratio)), free=True)]
    assert bco == pytest.approx([math.log(q / (1 - q)) for q in SHARE], abs=1e-6)
    sppo = trained(lambda ratio: sppo_hard_loss(ratio, beta=BETA), free=True)
    assert sppo == pytest.approx([(q - 0.5) / BETA for q in SHARE], abs=1e-6)


def test_a_normalised_policy_misses_the_exponential_weights_that_sppo_names():
    policy = trained(lambda ratio: sppo_hard_loss(ratio, beta=BETA))
    assert policy == pytest.approx([0.434623, 0.268351, 0.169695, 0.083945, 0.043387], abs=1e-6)
    assert policy != pytest.approx(oracles.tilted(REF, [(q - 0.5) / BETA for q in SHARE]), abs=1e-2)


def test_the_table_of_objectives_calls_each():
    """At ρ = 1.2 and -0.7, β = 0.1, through the names of a recipe."""
    made = PairBatch(pair(1.2, -0.7), pair(0.0, 0.0), pair(3.0, 2.0), {})
    expected = {
        "nca_pair": 1.341799,
        "bco_pair": 1.293706,
        "sppo_hard": 32.93,
        "apo_zero": 0.952543,
        "apo_down": 0.982606,
        "cal_dpo": 0.139387 + 32.93 / 2,
    }
    assert set(expected) == set(ANCHORED) <= set(OBJECTIVES)
    for name, value in expected.items():
        got = pairwise_loss(made, {name: 1.0}, beta=0.1)
        assert got.losses.item() == pytest.approx(value, abs=1e-5), name
        assert got.rewards.chosen.item() == pytest.approx(0.12)


def test_mpo_is_a_weighted_sum():
    """Sigmoid, the pair's BCO and 0.9 nats a token: 0.8 · 0.602653 + 0.2 · 1.293706 + 0.9."""
    made = PairBatch(pair(-2.7, -4.2), pair(-3.9, -3.5), pair(3.0, 2.0), {})
    got = pairwise_loss(made, {"sigmoid": 0.8, "bco_pair": 0.2, "nll": 1.0}, beta=0.1, label_smoothing=0.0)
    assert got.losses.item() == pytest.approx(1.640863, abs=1e-6)
