"""How a policy stands to labels: by hand, by counting pairs, and with prompts that repeat."""

import numpy as np
import pytest

from eval.pairs.labels import LabelScores, label_estimates


def scores(ratio, desirable, tokens=None):
    ratio = np.array(ratio, dtype=float)
    tokens = np.ones(len(ratio)) if tokens is None else np.array(tokens, dtype=float)
    return LabelScores(ratio - 1.0, np.full(len(ratio), -1.0), tokens, np.array(desirable, dtype=bool))


def test_by_hand():
    """Desirable 2 and 0 against 1 and 0: 2 above both, 0 below one and level with the other: (1 + 1 + 0 + 0.5) / 4."""
    found = label_estimates(scores([2, 0, 1, 0], [1, 1, 0, 0]), np.arange(4))
    assert found["log_ratio/desirable"].value == 1.0
    assert found["log_ratio/undesirable"].value == 0.5
    assert found["told_apart/log_ratio"].value == pytest.approx(0.625)
    assert found["told_apart/ref"].value == 0.5
    assert found["told_apart/log_ratio"].n == 4


def test_per_token_for_one_model_and_whole_for_the_ratio():
    found = label_estimates(scores([-2, -3], [1, 0], tokens=[1, 8]), np.arange(2))
    assert found["told_apart/policy"].value == 0.0  # -3 against -4/8
    assert found["told_apart/log_ratio"].value == 1.0


def test_it_is_the_share_of_pairs_and_its_interval_holds_it():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(200):
        good = np.arange(80) % 2 == 0
        values = rng.normal(size=80) + good
        e = label_estimates(scores(values, good), np.arange(80))["told_apart/log_ratio"]
        pairs = values[good][:, None] - values[~good][None]
        assert e.value == pytest.approx((pairs > 0).mean())
        missed += not e.low <= 0.7602 <= e.high  # Φ(1/√2)
    assert 1 <= missed <= 22


def test_rows_of_one_prompt_are_no_more_than_the_prompt():
    """Each row three times under its prompt: the same figure with the same interval."""
    values, good = np.array([0.1, 0.9, -0.2, 0.4, 0.8, 0.0]), np.array([1, 1, 0, 0, 1, 0], dtype=bool)
    one = label_estimates(scores(values, good), np.arange(6))
    three = label_estimates(scores(np.repeat(values, 3), np.repeat(good, 3)), np.repeat(np.arange(6), 3))
    for name in one:
        assert three[name] == pytest.approx(one[name]), name


def test_figures_that_have_too_little_are_absent():
    assert set(label_estimates(scores([1, 2], [1, 1]), np.arange(2))) == {"log_ratio/desirable"}
    assert label_estimates(scores([1, 2], [1, 0]), np.zeros(2)) == {}
