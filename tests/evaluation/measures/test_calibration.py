"""Calibration of preference probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from eval.pairs.calibration import (
    Judged,
    beside_calibrated,
    brier,
    calibration_estimates,
    debiased_error,
    expected_calibration_error,
    fitted_temperature,
    margin_confidence,
    negative_log_likelihood,
    probability,
    reliability,
    sequence_confidence,
    temperature_estimate,
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
    estimates = calibration_estimates(MARGINS)
    assert estimates["brier"].value == pytest.approx(brier(MARGINS).mean())
    assert estimates["temperature"].value == pytest.approx(fitted_temperature(MARGINS), rel=1e-6)
    for name, estimate in estimates.items():
        assert estimate.low < estimate.value < estimate.high, name
        assert estimate.n == 500
    deviation = negative_log_likelihood(MARGINS).std() / math.sqrt(500)
    assert estimates["nll"].high - estimates["nll"].low == pytest.approx(3.92 * deviation, rel=0.15)


def test_pairs_of_one_prompt_count_once():
    once = calibration_estimates(MARGINS)
    again = calibration_estimates(np.tile(MARGINS, 4), np.tile(np.arange(500), 4))
    for name, estimate in once.items():
        assert again[name].n == 500
        assert again[name].high - again[name].low == pytest.approx(estimate.high - estimate.low, rel=0.2), name


def calibrated(n, source, sureness=1.0):
    size = source.exponential(1.5, size=n)
    return sureness * np.where(source.random(n) < probability(size), size, -size)


def test_a_calibrated_model_has_no_error_beyond_chance():
    """The plain error of 50 pairs is far from 0, and a bootstrap of it never holds the truth."""
    source, hits, alarms, plain = np.random.default_rng(3), 0, 0, []
    for _ in range(200):
        judged = margin_confidence(calibrated(50, source))
        got, beside = debiased_error(judged), beside_calibrated(judged, rng=source, draws=200)
        hits += got.low == 0
        alarms += beside.p_value <= 0.05
        plain.append(beside.ece)
        assert got.high > 0
    assert hits >= 186
    assert alarms <= 20
    assert np.mean(plain) > 0.08
    assert beside.typical == pytest.approx(np.median(plain), abs=0.03)
    sure = margin_confidence(calibrated(400, source, sureness=4.0))
    assert debiased_error(sure).low > 0.03
    assert beside_calibrated(sure, rng=source).p_value < 0.01
    assert "a calibrated model shows" in str(beside)


def test_a_temperature_has_the_ends_of_its_likelihood():
    """Where the log-likelihood has fallen by t²/2 of its value at the best temperature."""
    got, best = temperature_estimate(MARGINS), fitted_temperature(MARGINS)
    sums = lambda t: negative_log_likelihood(MARGINS / t).sum()  # noqa: E731
    fall = [sums(end) - sums(best) for end in (got.low, got.high)]
    assert fall[0] == pytest.approx(fall[1])
    assert fall[0] == pytest.approx(stats.t.ppf(0.975, 499) ** 2 / 2, rel=0.25)  # times the design effect


@pytest.mark.parametrize(
    ("margins", "value", "ends"),
    [
        ([1.0, 2.0, 1.0], 0.0, (0.0, None)),
        ([-1.0, -2.0, -1.0], math.inf, (None, math.inf)),
        ([-1.0, 0.5, 0.2], math.inf, (None, math.inf)),
        ([0.0, 0.0], 1.0, (0.0, math.inf)),
    ],
    ids=["all right", "all wrong", "wrong on the whole", "only ties"],
)
def test_a_temperature_that_is_no_number_is_not_certain(margins, value, ends):
    got = temperature_estimate(np.array(margins))
    assert got.value == value
    assert got.low < got.high
    for wanted, found in zip(ends, (got.low, got.high), strict=True):
        assert wanted is None or found == wanted


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reliability(Judged(np.array([1.5]), np.array([1.0])))
    with pytest.raises(ValueError, match="at least one pair"):
        reliability(Judged(np.array([]), np.array([])))
    with pytest.raises(ValueError, match="bins must be at least 1"):
        reliability(margin_confidence(MARGINS), bins=0)
    with pytest.raises(ValueError, match="at least 2 items"):
        calibration_estimates(np.array([1.0]))
