"""Several runs at once: corrected p-values, and intervals that hold together."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from eval.statistics import comparisons
from eval.statistics.comparisons import compare_runs, holm, sign_flip_p_values


def rng(seed=0):
    return np.random.default_rng(seed)


def test_holm_by_hand():
    """Sorted .01 .02 .04, times 3 2 1: .03 .04 .04; the order given is kept."""
    assert_allclose(holm(np.array([0.04, 0.01, 0.02])), [0.04, 0.03, 0.04])


def test_holm_never_falls_behind_a_smaller_p_value():
    """.02 x 2 = .04 is below .015 x 3 = .045, which it may not be."""
    assert_allclose(holm(np.array([0.015, 0.02, 0.9])), [0.045, 0.045, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_its_steps_reject(values):
    """Steps: sorted, each is compared with level / (tests left), until the first that fails."""
    p_values, level = np.array(values), 0.05
    adjusted, rejected = holm(p_values), set()
    for step, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] * (len(values) - step) > level:
            break
        rejected.add(int(i))
    assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert (adjusted >= p_values).all()
    assert (adjusted <= 1).all()


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(ValueError, match=r"p_values must be in \[0, 1\]"):
        holm(np.array([0.5, bad]))


def test_sign_flips_approach_the_exact_test():
    """Six differences have 64 sign choices; count those whose mean is as far from zero."""
    differences = np.array([0.9, 1.1, -0.2, 0.7, 0.4, 1.3])
    choices = np.array(list(itertools.product([-1, 1], repeat=6))) @ differences
    exact = np.mean(np.abs(choices) >= abs(differences.sum()) - 1e-12)
    got = sign_flip_p_values(differences[:, None], rng=rng(), resamples=40_000)
    assert got[0] == pytest.approx(exact, abs=0.005)


def test_signs_are_those_of_clusters():
    """Three clusters of two items have 8 choices, not 64, so a p-value below 1/4 is impossible."""
    differences = np.array([1.0, 2, 3, 4, 5, 6])
    labels = np.repeat([0, 1, 2], 2)
    single = sign_flip_p_values(differences[:, None], rng=rng())
    clustered = sign_flip_p_values(differences[:, None], rng=rng(), clusters=labels)
    assert single[0] == pytest.approx(2 / 64, abs=0.01)
    assert clustered[0] == pytest.approx(2 / 8, abs=0.02)


def test_no_p_value_is_zero_and_no_difference_gives_one():
    differences = np.stack([np.full(200, 3.0), np.zeros(200)], axis=1)
    assert_allclose(sign_flip_p_values(differences, rng=rng(), resamples=999), [1 / 1000, 1.0])


def test_equal_means_count_as_far_even_after_rounding():
    """One prompt counts: both signs are as far, so the p-value is 1."""
    differences = np.array([[0.1 + 0.2], [0.0], [0.0]])
    assert sign_flip_p_values(differences, rng=rng(), resamples=99)[0] == 1.0


def test_draws_come_in_pieces_without_changing_their_number(monkeypatch):
    monkeypatch.setattr(comparisons, "DRAWS_AT_ONCE", 100)
    differences = np.ones((30, 1))
    assert sign_flip_p_values(differences, rng=rng(), resamples=100)[0] == pytest.approx(1 / 101)


def test_corrected_p_values_keep_the_error_of_four_equal_runs_at_five_percent():
    """400 data sets of four runs that do not differ: how often does any of the six pairs look significant?"""
    source, single, corrected = rng(11), 0, 0
    for _ in range(400):
        runs = source.normal(size=(40, 4)) + source.normal(size=(40, 1))
        pairs = np.stack([runs[:, i] - runs[:, j] for i, j in itertools.combinations(range(4), 2)], axis=1)
        p_values = sign_flip_p_values(pairs, rng=source, resamples=400)
        single += p_values.min() <= 0.05
        corrected += holm(p_values).min() <= 0.05
    assert single / 400 > 0.12
    assert 0.02 <= corrected / 400 <= 0.07


def test_every_pair_is_compared_with_sign_interval_and_correction():
    shared = rng(1).normal(size=200)
    runs = {
        "a": shared + 0.5 + 0.2 * rng(2).normal(size=200),
        "b": shared + 0.2 * rng(3).normal(size=200),
        "c": shared + 0.2 * rng(4).normal(size=200),
    }
    got = {(row.first, row.second): row for row in compare_runs(runs, rng=rng())}
    assert set(got) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert got["a", "b"].difference.value == pytest.approx(runs["a"].mean() - runs["b"].mean())
    assert got["a", "b"].difference.low > 0
    assert got["a", "b"].p_holm == pytest.approx(3 * got["a", "b"].p_value)
    assert got["a", "b"].p_holm < 0.01
    assert got["b", "c"].p_holm > 0.05
    assert got["b", "c"].difference.low < 0 < got["b", "c"].difference.high


def test_joint_intervals_of_three_runs_cover_all_their_differences(monkeypatch):
    """In about 95% of data sets all three intervals hold."""
    monkeypatch.setattr(comparisons, "sign_flip_p_values", lambda differences, **_: np.ones(differences.shape[1]))
    source, joint = rng(12), 0
    for _ in range(200):
        runs = {name: source.normal(size=40) for name in "abc"}
        joint += all(row.difference.low <= 0 <= row.difference.high for row in compare_runs(runs, rng=source))
    assert 0.92 <= joint / 200 <= 0.98


def test_two_runs_need_no_correction():
    runs = {"a": rng(1).normal(size=50), "b": rng(2).normal(size=50)}
    (row,) = compare_runs(runs, rng=rng())
    assert row.p_holm == row.p_value
    narrow = compare_runs(runs, rng=rng(), level=0.5)[0].difference
    assert narrow.high - narrow.low < row.difference.high - row.difference.low


def test_clusters_reach_interval_and_p_value():
    labels = np.repeat(np.arange(20), 10)
    runs = {"a": (rng(1).normal(size=20) + 0.3)[labels], "b": np.zeros(200)}
    (single,), (clustered,) = compare_runs(runs, rng=rng()), compare_runs(runs, rng=rng(), clusters=labels)
    assert clustered.difference.n == 20
    assert clustered.difference.high - clustered.difference.low > 2 * (single.difference.high - single.difference.low)
    assert clustered.p_value > single.p_value


def test_runs_need_the_same_items():
    with pytest.raises(ValueError, match=r"as many items each, got \{'a': 3, 'b': 2\}"):
        compare_runs({"a": np.zeros(3), "b": np.zeros(2)}, rng=rng())
    with pytest.raises(ValueError, match="two runs or more"):
        compare_runs({"a": np.zeros(3)}, rng=rng())
