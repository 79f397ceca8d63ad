"""Calibration of preference probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.pairs.calibration import (
    Judged,
    brier,
    calibration_estimates,
    expected_calibration_error,
    fitted_temperature,
    margin_confidence,
    negative_log_likelihood,
    probability,
    reliability,
    sequence_confidence,
)

RNG = np.random.default_rng(0)
MARGINS = RNG.normal(0.4, 1.5, size=500)


def by_hand(confidence, correct, bins):
    """The definition, pair by pair, with edges written out."""
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [
            (c, k)
            for c, k in zip(confidence, correct, strict=True)
            if low <= c < high or (c == 1.0 and index == bins - 1)
        ]
        if inside:
            sure, right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(confidence) * abs(right - sure)
    return total


def test_the_error_is_its_definition():
    judged = margin_confidence(MARGINS)
    assert expected_calibration_error(judged, bins=10) == pytest.approx(by_hand(*judged, 10), abs=1e-12)


def test_a_confidence_of_one_is_in_the_last_bin():
    judged = Judged(np.array([1.0, 1.0]), np.array([1.0, 0.0]))
    (last,) = reliability(judged)
    assert (last.low, last.high, last.n) == (0.9, 1.0, 2)
    assert expected_calibration_error(judged) == 0.5


def test_the_curve_is_that_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    confidence, correct = margin_confidence(MARGINS)
    for scheme, strategy in (("width", "uniform"), ("mass", "quantile")):
        share, mean = calibration.calibration_curve(correct, confidence, n_bins=10, strategy=strategy)
        ours = reliability(Judged(confidence, correct), scheme=scheme)
        assert [b.accuracy for b in ours] == pytest.approx(share, abs=1e-12)
        assert [b.confidence for b in ours] == pytest.approx(mean, abs=1e-12)


def test_the_brier_score_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    theirs = metrics.brier_score_loss(np.ones(len(MARGINS)), probability(MARGINS), pos_label=1)
    assert brier(MARGINS).mean() == pytest.approx(theirs, abs=1e-12)


def test_bins_of_equal_mass_hold_equally_many():
    sizes = [part.n for part in reliability(margin_confidence(MARGINS), bins=7, scheme="mass")]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == len(MARGINS)


def test_a_calibrated_model_has_almost_no_error_and_temperature_one():
    rng = np.random.default_rng(1)
    size = rng.exponential(1.5, size=100_000)
    margin = np.where(rng.random(len(size)) < probability(size), size, -size)  # right as often as it says
    assert expected_calibration_error(margin_confidence(margin)) < 0.01
    assert fitted_temperature(margin) == pytest.approx(1.0, abs=0.02)
    assert fitted_temperature(3 * margin) == pytest.approx(3.0, abs=0.06)  # three times too sure
    assert expected_calibration_error(margin_confidence(3 * margin)) > 0.05


def test_the_fitted_temperature_has_the_best_likelihood():
    best = fitted_temperature(MARGINS)
    at = lambda t: negative_log_likelihood(MARGINS / t).mean()  # noqa: E731
    assert all(at(best) <= at(best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


@pytest.mark.parametrize(
    ("margins", "temperature"),
    [([1.0, 2.0], 0.0), ([0.0, 3.0], 0.0), ([-1.0, 0.5], math.inf), ([1.0, -1.0], math.inf), ([0.0, 0.0], 1.0)],
    ids=["all right", "right or tied", "wrong on the whole", "no better than chance", "only ties"],
)
def test_where_no_temperature_is_best_the_limit_is_told(margins, temperature):
    assert fitted_temperature(np.array(margins)) == temperature


def test_the_language_models_confidence_is_another_number():
    confidence, correct = sequence_confidence(np.log([0.5, 0.2]), np.log([0.4, 0.2]))
    assert confidence == pytest.approx([0.5, 0.2])
    assert correct.tolist() == [1.0, 0.5]


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=40))
def test_nothing_overflows_and_errors_stay_in_range(margins):
    margins = np.array(margins)
    for scheme in ("width", "mass"):
        assert 0 <= expected_calibration_error(margin_confidence(margins), scheme=scheme) <= 1
    assert np.isfinite(negative_log_likelihood(margins)).all()
    assert ((brier(margins) >= 0) & (brier(margins) <= 1)).all()
    assert fitted_temperature(margins) >= 0


def test_estimates_carry_intervals_around_their_values():
    estimates = calibration_estimates(MARGINS, rng=np.random.default_rng(2))
    assert estimates["brier"].value == pytest.approx(brier(MARGINS).mean())
    assert estimates["ece"].value == expected_calibration_error(margin_confidence(MARGINS))
    for name, estimate in estimates.items():
        assert estimate.low <= estimate.high, name
        assert estimate.n == 500
    assert estimates["nll"].low < estimates["nll"].value < estimates["nll"].high
    deviation = negative_log_likelihood(MARGINS).std() / math.sqrt(500)
    assert estimates["nll"].high - estimates["nll"].low == pytest.approx(3.92 * deviation, rel=0.15)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reliability(Judged(np.array([1.5]), np.array([1.0])))
    with pytest.raises(ValueError, match="at least one pair"):
        reliability(Judged(np.array([]), np.array([])))
    with pytest.raises(ValueError, match="bins must be at least 1"):
        reliability(margin_confidence(MARGINS), bins=0)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        calibration_estimates(np.array([1.0]), rng=RNG)
