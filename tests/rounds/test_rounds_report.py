"""The figures of `report.md` and of each round's `report.json`."""

import json

import numpy as np
import pytest

from align.recipe.loading import load_recipe
from align.rounds.report import _shown, estimate, reward_bounds
from eval.statistics.intervals import mean_estimate


def test_a_mean_has_the_interval_that_evaluations_have():
    values = [0.1, 0.9, 0.2, 0.15, 0.1]
    found = estimate(values, (0.0, 1.0))
    expected = mean_estimate(np.array(values), bounds=(0.0, 1.0))
    assert tuple(found.values()) == pytest.approx(expected)
    assert found["high"] > np.mean(values) + 1.96 * np.std(values, ddof=1) / np.sqrt(5)
    alike = estimate([3.0, 3.0, 3.0])
    assert alike == {"value": 3.0, "low": None, "high": None, "n": 3}
    assert _shown(alike) == "3"
    assert _shown(estimate([3.0] * 5, (0.0, np.inf))) == "3 [1.435, +inf]"
    assert estimate([3.0, 1.0, 2.0, 2.0], (0.0, 5.0))["low"] is None  # nothing has shown what four would cover
    assert estimate([2.0]) == {"value": 2.0, "low": None, "high": None, "n": 1}
    assert estimate([]) is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("score", "bounds"),
    [
        ("{rewards: [clarity]}", (0.0, 1.0)),
        ("{rewards: [positive_sentiment]}", (-1.0, 1.0)),
        ("{kind: language_model, path: tiny-random}", (0.0, 1.0)),
        ("{kind: preference_model, path: m, of: log_odds}", (-np.inf, np.inf)),
        ("{kind: reward_model, path: m}", (-np.inf, np.inf)),
        (
            "{rewards: [clarity], judges: {j: {kind: reward, reward: positive_sentiment}}, weights: {clarity: 2.0, j: -0.5}}",
            (-0.5, 2.5),
        ),
    ],
)
def test_an_interval_ends_where_a_score_does(score, bounds):
    recipe = load_recipe("rounds/tiny", [f"rounds.score={score}"])
    assert reward_bounds(recipe.rounds.score) == bounds
