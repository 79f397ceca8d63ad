"""Greedy soup, Frank-Wolfe, Fisher merging and SLERP on quadratics whose answers are known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig

from align.merging.adapters import Adapter, slerp
from align.merging.choosing import fisher_merge, frank_wolfe, greedy_soup, slerp_weights

MEMBERS, GOAL = np.array([[0.9, 0.0], [0.0, 1.2], [1.5, 1.5], [-1.0, -1.0]]), np.array([0.5, 0.5])
TRIANGLE = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def score(weights):
    return -((np.array(weights) @ MEMBERS - GOAL) ** 2).sum()


def test_a_greedy_soup_keeps_who_does_not_hurt():
    found = greedy_soup(4, score)
    assert found.kept == [0, 1]
    assert found.weights == [0.5, 0.5, 0.0, 0.0]
    assert found.score == pytest.approx(-0.0125)


def test_a_greedy_soup_is_never_below_its_best_member():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points, goal = rng.normal(size=(5, 3)), rng.normal(size=3)

        def value(w, points=points, goal=goal):
            return -np.abs(np.array(w) @ points - goal).sum()

        found = greedy_soup(5, value)
        assert found.score >= max(value(np.eye(5)[k]) for k in range(5))
        assert found.score == pytest.approx(value(found.weights))
    with pytest.raises(ValueError, match="must be finite"):
        greedy_soup(2, lambda _: math.nan)


@pytest.mark.parametrize(
    ("goal", "losses", "least"),
    [
        ((0.6, 0.5), {1: 1.105, 2: 0.34944444, 3: 0.049444444, 10: 0.023347107, 100: 9.7892363e-05}, 0.0),
        ((1.6, 1.5), {1: 1.205, 2: 0.44944444, 3: 0.38277778, 10: 0.32235537, 100: 0.30283551}, 0.3025),
    ],
)
def test_frank_wolfe_reaches_the_optimum_of_a_triangle(goal, losses, least):
    for steps, loss in losses.items():
        weights = frank_wolfe(3, lambda w: TRIANGLE @ (np.array(w) @ TRIANGLE - goal), steps=steps)
        assert sum(weights) == pytest.approx(1)
        value = 0.5 * ((np.array(weights) @ TRIANGLE - goal) ** 2).sum()
        assert value == pytest.approx(loss, rel=1e-6)
        assert value - least <= 16 / (steps + 2)
    with pytest.raises(ValueError, match="index of a member"):
        frank_wolfe(3, lambda w: w, steps=1, start=3)


def test_fisher_merging_is_the_posterior_mean_of_quadratics():
    precision = [torch.tensor([4.0, 1.0, 0.5]), torch.tensor([1.0, 3.0, 0.5])]
    means = [torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 2.0, -1.0])]
    torch.testing.assert_close(fisher_merge(means, precision, [0.5, 0.5]), torch.tensor([0.8, 1.5, 0.5]))
    uneven = torch.tensor([0.94117647, 0.85714286, 1.4])
    torch.testing.assert_close(fisher_merge(means, precision, [0.8, 0.2]), uneven)
    none = [torch.zeros(3), torch.zeros(3)]  # what nobody is sure of is averaged
    torch.testing.assert_close(fisher_merge(means, none, [0.5, 0.5]), torch.tensor([0.5, 1.0, 0.5]))
    with pytest.raises(ValueError, match="must not be negative"):
        fisher_merge(means, [-precision[0], precision[1]], [0.5, 0.5])
    with pytest.raises(ValueError, match="of one shape"):
        fisher_merge(means, [precision[0][:2], precision[1]], [0.5, 0.5])


def made(a, b):
    return Adapter(Path(), LoraConfig(), {"m": (a, b)}, {}, None, "")


def test_slerp_goes_along_the_arc_of_the_weight_changes():
    e = torch.eye(2)
    one, two = made(2 * e[:1], e[:, :1]), made(e[:1], 2 * e[:, 1:])  # ΔW of norm 2, at right angles
    for share in (0.0, 0.25, 0.5, 1.0):
        a, b = slerp(one, two, share)["m"]
        delta = b @ a
        assert delta.norm() == pytest.approx(2, abs=1e-6)
        cosine = float((delta * (one.factors["m"][1] @ one.factors["m"][0])).sum() / 4)
        assert math.acos(min(1, cosine)) == pytest.approx(share * math.pi / 2, abs=1e-3)
    assert slerp_weights(1.0, 0.3) == (0.7, 0.3)
    assert slerp_weights(0.5, 0.5) == pytest.approx((1 / math.sqrt(3), 1 / math.sqrt(3)))
