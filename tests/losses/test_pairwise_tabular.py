"""Pairwise objectives trained to convergence on a softmax over a few answers reach optima solved independently."""

import itertools
import math

import oracles
import oracles_pairwise
import pytest
import torch
from oracles_pairwise import minimise, tilted, two_arms_with_margin

from align.losses import Pair, PairBatch, pairwise_loss

R = (1.0, 0.4, 0.0, -0.6, -1.1)
REF = (0.3, 0.25, 0.2, 0.15, 0.1)
LENGTHS = (1.0, 2.0, 3.0, 2.0, 4.0)
BETA = 0.5
BRADLEY_TERRY = [[oracles_pairwise.sigmoid(a - b) for b in R] for a in R]
CYCLE = [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def train(objective, ref=REF, *, law=None, scores=R, lengths=None, margin=0.0, beta=BETA, **settings):
    """Minimise Σ law[i][j] · loss(i chosen, j rejected) over ordered pairs, from the reference."""
    pairs = list(itertools.permutations(range(len(ref)), 2))
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
    weight = double([1.0 if law is None else law[i][j] for i, j in pairs])
    ref_logps, values = double(ref).log(), double(scores)
    tokens = double(lengths or [1.0] * len(ref))

    def both(column):
        return Pair(column[chosen], column[rejected])

    columns = {"chosen_reward": values[chosen], "rejected_reward": values[rejected]}
    columns["margin"] = torch.as_tensor(margin, dtype=weight.dtype).expand_as(weight)
    columns["preference"] = double([BRADLEY_TERRY[i][j] if len(ref) == 5 else 0.5 for i, j in pairs])

    def population(logps):
        batch = PairBatch(both(logps), both(ref_logps), both(tokens), columns)
        return (weight * pairwise_loss(batch, objective, beta=beta, **settings).losses).sum()

    return minimise(population, [math.log(q) for q in ref])


def law(seed, n=5):
    return (torch.rand(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05).tolist()


def log_ratio(trained, ref):
    return math.log(trained[0] / ref[0]) - math.log(trained[1] / ref[1])


# --- scores: the same optimum whatever is sampled ----------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_copg_reaches_the_kl_regularised_optimum_under_any_sampling_law(seed):
    expected = tilted(REF, [r / BETA for r in R])
    assert train({"copg": 1.0}, law=law(seed)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_reward_aware_rpo_reaches_the_optimum_of_scaled_scores(seed):
    expected = tilted(REF, [0.7 * r / BETA for r in R])
    assert train({"reward_aware_rpo": 1.0}, law=law(seed), reward_scale=0.7) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_dno_steps_to_the_tilted_previous_policy_however_pairs_are_weighted(seed):
    """π_{t+1} = softmax(log π_t + r_t/η), r_t = P π_t for preferences that no scalar explains."""
    g = torch.Generator().manual_seed(7)
    raw = torch.randn(5, 5, generator=g, dtype=torch.float64)
    won = (torch.sigmoid(raw - raw.T) @ double(REF)).tolist()
    expected = tilted(REF, [r / 0.3 for r in won])
    assert train({"dno": 1.0}, scores=won, law=law(seed), beta=0.3) == pytest.approx(expected, abs=1e-6)


def test_gpo_in_pairs_reaches_the_optimum_that_its_pointwise_form_misses():
    """s = S π_t for a skew-symmetric S; the pointwise regression with log Z = 0 has an optimum elsewhere."""
    raw = torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    previous = (0.5, 0.3, 0.2)
    scores = ((raw - raw.T) @ double(previous)).tolist()
    expected = tilted(previous, [s / 2.0 for s in scores])
    assert train({"copg": 1.0}, previous, scores=scores, beta=2.0) == pytest.approx(expected, abs=1e-6)
    ref = double(previous)
    pointwise = minimise(lambda z: (ref * (z - ref.log() - double(scores) / 2.0) ** 2).sum(), ref.log().tolist())
    assert pointwise != pytest.approx(expected, abs=1e-3)


def exploitability(policy):
    return max(sum(p * q for p, q in zip(row, policy, strict=True)) for row in CYCLE) - 0.5


def test_the_average_iterate_of_dno_approaches_nash_on_a_cycle_and_the_last_does_not():
    """Ten iterations are trained, and equal the closed form that goes on from there."""
    policy, average, steps, eta = [0.62, 0.23, 0.15], [0.0] * 3, 4000, 20.0
    for step in range(steps):
        average = [a + p / steps for a, p in zip(average, policy, strict=True)]
        won = [sum(p * q for p, q in zip(row, policy, strict=True)) for row in CYCLE]
        following = tilted(policy, [r / eta for r in won])
        if step < 10:
            assert train({"dno": 1.0}, policy, scores=won, beta=eta) == pytest.approx(following, abs=1e-6)
        policy = following
    assert exploitability(average) < 0.02
    assert exploitability(policy) > 0.1


# --- labels ------------------------------------------------------------------------------------


def test_soft_labels_reach_the_bradley_terry_optimum_under_any_sampling_law():
    """Rater shares as targets: unlike hard labels, which pairs are drawn does not matter."""
    expected = tilted(REF, [r / BETA for r in R])
    assert train({"soft_sigmoid": 1.0}, law=law(2)) == pytest.approx(expected, abs=1e-6)


def test_robust_dpo_undoes_flips_that_mislead_dpo():
    noisy = [[0.8 * p + 0.2 * (1 - p) for p in row] for row in BRADLEY_TERRY]
    clean = tilted(REF, [r / BETA for r in R])
    robust = train({"robust": 1.0}, law=noisy, label_smoothing=0.2)
    assert robust == pytest.approx(clean, abs=1e-6)
    assert train({"sigmoid": 1.0}, law=noisy, label_smoothing=0.0) != pytest.approx(clean, abs=1e-2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_conservative_dpo_aims_at_the_smoothed_label(smoothing):
    """Two arms, p = .75: β times the log-ratio difference is logit((1 - ε) p + ε (1 - p))."""
    ref, p = (0.3, 0.7), 0.75
    trained = train({"sigmoid": 1.0}, ref, law=[[0, p], [1 - p, 0]], scores=(0, 0), label_smoothing=smoothing)
    mixed = (1 - smoothing) * p + smoothing * (1 - p)
    assert BETA * log_ratio(trained, ref) == pytest.approx(math.log(mixed / (1 - mixed)), abs=1e-6)


def test_ipo_projects_the_preferences():
    """log π_i - log ref_i = mean_j p_ij / β up to a constant: bounded even where a preference is certain."""
    expected = tilted(REF, [sum(row) / 5 / BETA for row in BRADLEY_TERRY])
    assert train({"ipo": 1.0}, law=BRADLEY_TERRY) == pytest.approx(expected, abs=1e-6)
    certain = [[float(i < j) for j in range(3)] for i in range(3)]
    ranked = train({"ipo": 1.0}, (0.5, 0.3, 0.2), law=certain, scores=(0, 0, 0))
    share = [(sum(row) + 0.5) / 3 for row in certain]
    assert ranked == pytest.approx(tilted((0.5, 0.3, 0.2), [s / BETA for s in share]), abs=1e-6)


def test_length_mean_ipo_lets_long_answers_move_further():
    expected = oracles_pairwise.ipo_mean_optimum(BRADLEY_TERRY, REF, LENGTHS, BETA)
    trained = train({"ipo_mean": 1.0}, law=BRADLEY_TERRY, lengths=LENGTHS)
    assert sum(expected) == pytest.approx(1.0)
    assert trained == pytest.approx(expected, abs=1e-6)
    assert trained != pytest.approx(tilted(REF, [sum(row) / 5 / BETA for row in BRADLEY_TERRY]), abs=1e-2)


@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_irpo_balances_preference_and_likelihood(eta):
    """Two arms: β(p - σ(βh)) + η(p - π_1) = 0, which is the oracle of RPO at η/β."""
    ref, p = (0.3, 0.7), 0.75
    trained = train({"sigmoid": 1.0, "nll": eta}, ref, law=[[0, p], [1 - p, 0]], scores=(0, 0), label_smoothing=0.0)
    expected = oracles.rpo_two_arms(p, BETA, eta / BETA, math.log(3 / 7))
    assert log_ratio(trained, ref) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_a_margin_of_the_pair_spreads_the_arms(gap):
    ref, p = (0.3, 0.7), 0.75
    trained = train({"reverse_po": 1.0}, ref, law=[[0, p], [1 - p, 0]], scores=(0, 0), margin=gap, margin_scale=0.8)
    assert BETA * log_ratio(trained, ref) == pytest.approx(two_arms_with_margin(p, BETA * 0.8 * gap), abs=1e-6)


def test_length_normalised_dpo_balances_mean_log_ratios():
    ref, p = (0.3, 0.7), 0.6
    trained = train({"sigmoid_norm": 1.0}, ref, law=[[0, p], [1 - p, 0]], scores=(0, 0), lengths=(2.0, 3.0))
    h = [math.log(t / q) for t, q in zip(trained, ref, strict=True)]
    assert BETA * (h[0] / 2 - h[1] / 3) == pytest.approx(math.log(p / (1 - p)), abs=1e-6)


def test_simpo_balances_mean_log_probabilities_and_ignores_the_reference():
    p, gamma = 0.6, 0.4
    kw = {"law": [[0, p], [1 - p, 0]], "scores": (0, 0), "lengths": (2.0, 3.0), "simpo_gamma": gamma}
    one, other = train({"simpo": 1.0}, (0.3, 0.7), **kw), train({"simpo": 1.0}, (0.6, 0.4), **kw)
    assert one == pytest.approx(other, abs=1e-6)
    margin = BETA * (math.log(one[0]) / 2 - math.log(one[1]) / 3)
    assert margin == pytest.approx(two_arms_with_margin(p, gamma), abs=1e-6)


def test_discopop_stops_short_of_the_reference():
    """From equality it settles where the chosen answer is the less likely one: margin -0.1185."""
    ref = (0.5, 0.5)
    trained = train({"discopop": 1.0}, ref, law=[[0, 1.0], [0.0, 0]], scores=(0, 0), discopop_tau=0.05, beta=0.05)
    assert 0.05 * log_ratio(trained, ref) == pytest.approx(-0.1185, abs=1e-4)


def test_modpo_mixes_the_objectives():
    """π_ref e^((w R + (1-w) m)/β)/Z, where the pairs rank by R and the column holds the difference of m."""
    scores, other = (1.0, 0.4, -0.2, -0.7, -1.3), (0.3, -0.5, 0.8, 0.0, -0.6)
    preferred = [[oracles_pairwise.sigmoid(a - b) for b in scores] for a in scores]
    gaps = [other[i] - other[j] for i, j in itertools.permutations(range(5), 2)]
    ref = (0.35, 0.25, 0.2, 0.12, 0.08)
    got = train({"modpo": 1.0}, ref, law=preferred, margin=gaps, modpo_weight=0.4)
    assert got == pytest.approx((0.609151, 0.103089, 0.242852, 0.037398, 0.007509), abs=1e-6)


def test_exo_of_a_pair_reaches_the_smoothed_odds():
    trained = train({"exo_pair": 1.0}, (0.3, 0.7), law=[[0, 1.0], [0.0, 0]], scores=(0, 0), label_smoothing=0.1)
    assert BETA * log_ratio(trained, (0.3, 0.7)) == pytest.approx(math.log(9), abs=1e-6)


def test_hinge_ignores_how_strong_a_preference_is():
    """Two arms: the margin is 1 for any share above one half."""
    for share in (0.6, 0.95):
        trained = train({"hinge": 1.0}, (0.3, 0.7), law=[[0, share], [1 - share, 0]], scores=(0, 0))
        assert BETA * log_ratio(trained, (0.3, 0.7)) == pytest.approx(1.0, abs=1e-2)
