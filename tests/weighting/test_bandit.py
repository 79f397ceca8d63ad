"""Weighting rules on a six-armed bandit with exact gradients, no model: where they end and whom they hurt on the way."""

import pytest
import torch
from weighting_oracles import ARMS, ASYMMETRIC, climb

from align.weighting import Statistics, make_rule

EQUAL = [0.5, 0.5]
UNIFORM = torch.zeros(6, dtype=torch.float64)
UNIT_BOX = {"bounds": [[0.0, 1.0], [0.0, 1.0]], "smoothing": 0.0}
W4 = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=torch.float64)
W4_PI = torch.tensor([0.2, -0.1, 0.4, 0.0], dtype=torch.float64).softmax(0)


@pytest.mark.parametrize(
    ("name", "options", "setting", "end", "fall"),
    [
        ("fixed", {}, {}, (0.002, 0.999), 5e-3),
        ("fixed", {}, {"divide": True}, (0.750, 0.420), 1e-3),
        ("max_min", {}, {}, (0.880, 0.198), 1.8e-2),
        ("mgda", {}, {"later": 0.8}, (0.876, 0.205), 0.0),
        ("mgda", {"normalisation": "unit"}, {"later": 0.8}, (0.821, 0.299), 0.0),
        ("upgrad", {}, {"later": 0.8}, (0.745, 0.425), 0.0),
        ("mgda", {}, {"advantages": True, "later": 0.8}, (0.755, 0.409), 3e-3),
        ("upgrad", {}, {"advantages": True, "later": 0.8}, (0.438, 0.731), 3e-3),
        ("gradient_influence", {"normalisation": "none"}, {}, (0.0, 1.0), 1.1e-2),
        ("pama", {}, {}, (0.882, 0.100), 2e-3),
    ],
)
def test_a_reward_five_times_larger(name, options, setting, end, fall):
    """The second reward is five times the first, the start at (0.689, 0.168); 800 units of rate times steps."""
    rule = make_rule(name, base=[1.0, 1.0] if name == "pama" or "divide" in setting else EQUAL, **options)
    v, worst, answer = climb(rule, 1150 if "later" in setting else 4000, scale=(1.0, 5.0), **setting)
    assert v == pytest.approx(end, abs=2e-3)
    assert worst == pytest.approx(fall, rel=0.25, abs=1e-7)
    if name == "gradient_influence":
        assert answer.weights.tolist() == pytest.approx([0.064, 0.936], abs=2e-3)


@pytest.mark.parametrize("name", ["fixed", "max_min", "mgda", "upgrad", "gradient_influence"])
def test_equal_scales_and_a_symmetric_start_reach_the_middle_of_the_front(name):
    v, _, _ = climb(make_rule(name, base=EQUAL), 800, later=2.0, logits=UNIFORM)
    assert v == pytest.approx([0.584, 0.584], abs=2e-3)


def test_pama_stalls_short_of_the_front():
    """No arm beats (0.542, 0.542) in both objectives there, so no completion has a say."""
    v, _, _ = climb(make_rule("pama", base=[1.0, 1.0]), 1200, later=2.0, logits=UNIFORM)
    assert v == pytest.approx([0.542, 0.542], abs=2e-3)


def test_pama_without_negatives_does_not_leave_the_uniform_policy():
    """All arms that beat the mean in one objective are below it in the other."""
    v, _, _ = climb(make_rule("pama", base=[1.0, 1.0], noon=True), 20, logits=UNIFORM)
    assert v == pytest.approx(ARMS.mean(0).tolist(), abs=1e-12)


def test_max_min_makes_the_objectives_equal_where_they_can_be():
    v, _, _ = climb(make_rule("max_min", base=EQUAL), 3000)
    assert v == pytest.approx([0.583, 0.583], abs=3e-3)


@pytest.mark.parametrize("logits", [UNIFORM, ASYMMETRIC])
def test_the_barrier_finds_the_constrained_optimum(logits):
    """max v_0 with v_1 ≥ 0.5 lies on the edge from (0.75, 0.42) to (0.42, 0.75), of slope -1: (0.67, 0.5).

    There v_0 + log(v_1 - 0.5)/t has its maximum at slack 1/t = 0.02, and vertices are approached slowly: (0.65, 0.52).
    """
    rule = make_rule("barrier", base=EQUAL, target=0, thresholds=[None, 0.5], sharpness=50.0)
    v, _, answer = climb(rule, 2000, logits=logits)
    assert v == pytest.approx([0.65, 0.52], abs=5e-3)
    assert answer.metrics["least_slack"] == pytest.approx(0.02, abs=2e-3)


def test_the_hypervolume_gradient_covers_more_of_the_front_than_fixed_weights():
    fixed = climb(make_rule("hypervolume", base=EQUAL, **UNIT_BOX), 250)[2]
    moved = climb(make_rule("hypervolume_gradient", base=EQUAL, **UNIT_BOX), 250)[2]
    assert moved.metrics["hypervolume"] > fixed.metrics["hypervolume"] + 0.005


def test_the_meta_factor_slows_but_does_not_turn_the_fixed_sum():
    """As m stays near 0.5 for small gains, about twice the steps reach the same point."""
    slow, _, _ = climb(make_rule("hypervolume", base=EQUAL, gain=1e-6, **UNIT_BOX), 180)
    fixed, _, _ = climb(make_rule("fixed", base=EQUAL), 90)
    assert slow == pytest.approx(fixed, abs=2e-3)


def w4_gram(rewards=W4):
    gradients = W4_PI * (rewards - (rewards @ W4_PI)[:, None])
    return gradients @ gradients.T


@pytest.mark.parametrize(
    ("step", "weights"), [(1.0, [0.337657, 0.339756, 0.322587]), (10.0, [0.370734, 0.394428, 0.234838])]
)
def test_one_step_of_gradient_influence_by_hand(step, weights):
    """g_k = π (r_k - J_k), I_k = Σ_j Σ_a π_a² (r_k,a - J_k)(r_j,a - J_j), w ∝ exp(step I)."""
    means = W4 @ W4_PI
    centred = W4_PI * (W4 - means[:, None])
    influence = [sum(float((row * other).sum()) for other in centred) for row in centred]
    assert means.tolist() == pytest.approx([0.481025, 0.412475, 0.323041], abs=1e-6)
    assert influence == pytest.approx([0.02607277, 0.03226812, -0.01958608], abs=1e-8)
    for normalisation in ("none", "clip"):  # all norms are below 1
        rule = make_rule("gradient_influence", base=[1 / 3] * 3, step=step, normalisation=normalisation)
        assert rule.update(Statistics(means, 0, w4_gram())).weights.tolist() == pytest.approx(weights, abs=1e-6)


def test_the_split_estimator_is_unbiased_and_the_plug_in_is_not():
    """8 samples, leave-one-out baseline: the plug-in exceeds the influences by 27 to 39%, two halves of 4 do not."""
    trials, samples = 40_000, 8
    arms = torch.multinomial(
        W4_PI.expand(trials, -1), samples, replacement=True, generator=torch.Generator().manual_seed(0)
    )

    def gradients(drawn):
        rewards, count = W4[:, drawn].permute(1, 0, 2), drawn.shape[1]
        centred = (rewards - rewards.mean(2, keepdim=True)) * count / (count - 1)
        scores = torch.eye(4, dtype=torch.float64)[drawn] - W4_PI
        return centred @ scores / count

    whole, first, second = gradients(arms), gradients(arms[:, :4]), gradients(arms[:, 4:])
    gram = (whole @ whole.mT).mean(0)
    halves = (first @ second.mT + second @ first.mT).mean(0) / 2
    means = W4 @ W4_PI
    exact, shares = w4_gram().sum(1), {}
    for estimator in ("plugin", "split"):
        rule = make_rule("gradient_influence", base=[1 / 3] * 3, step=1.0, normalisation="none", estimator=estimator)
        shares[estimator] = rule.update(Statistics(means, 0, gram, halves)).weights.double().log()
    plugin, split, truth = (x - x.mean() for x in (shares["plugin"], shares["split"], exact))
    assert split.tolist() == pytest.approx(truth.tolist(), abs=2e-3)
    assert (plugin / truth).tolist() == pytest.approx([1.28, 1.32, 1.29], abs=0.15)
    assert gram.sum(1).tolist() == pytest.approx([0.0363, 0.0433, -0.0250], abs=1.5e-3)
