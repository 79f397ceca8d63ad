"""Fronts, volumes and indicators against brute force and worked examples; pictures that are drawn."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure

from eval.fronts.indicators import (
    drawn_means,
    expected_utility,
    front,
    hypervolume,
    igd_plus,
    oriented,
    r2,
    simplex_lattice,
    sparsity,
    volume_over_prompts,
    volume_over_seeds,
)
from eval.report.plots_fronts import front_picture, objective_points, smoothed, trajectory_picture, weights_picture

PICTURES = True  # what is drawn is looked at

POINTS = st.integers(2, 3).flatmap(
    lambda k: arrays(float, st.tuples(st.integers(1, 6), st.just(k)), elements=st.integers(-4, 4).map(float))
)
ZERO = np.zeros(2)


def rng():
    return np.random.default_rng(0)


def weights_by_hand(objectives, divisions):
    grid = itertools.product(range(divisions + 1), repeat=objectives)
    return [[part / divisions for part in row] for row in grid if sum(row) == divisions]


def test_worked_volumes():
    assert hypervolume(np.array([[1.0, 3], [2, 2], [3, 1]]), ZERO) == pytest.approx(6)
    assert hypervolume(np.array([[1.0, 0.2], [0.6, 0.6], [0.2, 1]]), ZERO) == pytest.approx(0.52)
    assert hypervolume(np.array([[1.0, 2, 3], [2, 2, 1], [3, 1, 1]]), np.zeros(3)) == pytest.approx(9)
    assert hypervolume(np.array([[0.7, 0.4], [-1, 5]]), np.array([0.5, 0.5])) == 0


@given(POINTS)
def test_the_front_is_what_no_other_point_dominates(points):
    kept = {
        tuple(p) for p in points if not any(all(q >= p) and any(q > p) for q in points)
    }  # fmt: skip
    got = front(points)
    assert [tuple(row) for row in got] == sorted(kept)


def test_an_objective_to_be_minimised_changes_its_sign():
    points = np.array([[0.8, 700.0], [0.7, 600.0], [0.7, 800.0]])
    assert front(oriented(points, ["max", "min"])).tolist() == [[0.7, -600], [0.8, -700]]
    for directions in (["max"], ["max", "up"], []):
        with pytest.raises(ValueError, match="directions must be max or min for each of 2 objectives"):
            oriented(points, directions)


@pytest.mark.parametrize(("objectives", "divisions"), [(1, 5), (2, 1), (2, 10), (3, 4), (4, 3)])
def test_the_lattice_holds_every_weight_once(objectives, divisions):
    lattice = simplex_lattice(objectives, divisions)
    assert len(lattice) == math.comb(divisions + objectives - 1, objectives - 1)
    assert sorted(map(tuple, lattice)) == sorted(map(tuple, weights_by_hand(objectives, divisions)))
    assert lattice[0, 0] == 1
    assert lattice[-1, -1] == 1


@given(POINTS)
def test_indicators_are_what_their_formulas_say(points):
    objectives, weights = points.shape[1], weights_by_hand(points.shape[1], 6)
    utopia = [5.0] * objectives
    best = [min(max(w * abs(u - x) for w, u, x in zip(ws, utopia, p, strict=True)) for p in points) for ws in weights]
    assert r2(points, np.array(utopia), divisions=6) == pytest.approx(sum(best) / len(best))
    use = [max(sum(w * x for w, x in zip(ws, p, strict=True)) for p in points) for ws in weights]
    assert expected_utility(points, divisions=6) == pytest.approx(sum(use) / len(use))
    known = np.array([[4.0] * objectives, [0.0] * (objectives - 1) + [5.0]])
    short = [
        min(math.sqrt(sum(max(z - x, 0) ** 2 for z, x in zip(zs, p, strict=True))) for p in points) for zs in known
    ]
    assert igd_plus(points, known) == pytest.approx(sum(short) / len(short))
    kept = front(points)
    gaps = [(b - a) ** 2 for column in kept.T for a, b in itertools.pairwise(sorted(column))]
    assert sparsity(points) == pytest.approx(sum(gaps) / max(1, len(kept) - 1))


def test_a_point_beyond_the_known_front_is_at_no_distance():
    assert igd_plus(np.array([[2.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 1.0]])) == 0
    assert igd_plus(np.array([[0.0, 5.0]]), np.array([[3.0, 4.0]])) == 3


def test_r2_of_the_utopian_point_is_0_and_of_one_point_the_mean_distance():
    assert r2(np.array([[1.0, 1.0], [0.0, 0.0]]), np.ones(2)) == 0
    assert r2(np.array([[0.0, 0.0]]), np.ones(2), divisions=2) == pytest.approx((1 + 0.5 + 1) / 3)


def test_without_points_there_is_nothing_to_measure():
    nothing = np.empty((0, 2))
    assert hypervolume(nothing, ZERO) == 0
    for measure in (sparsity, expected_utility, lambda p: r2(p, ZERO), lambda p: igd_plus(p, np.ones((1, 2)))):
        with pytest.raises(ValueError, match="at least one point"):
            measure(nothing)
    with pytest.raises(ValueError, match="at least one point"):
        igd_plus(np.ones((1, 2)), nothing)
    with pytest.raises(ValueError, match="at least 1"):
        simplex_lattice(2, 0)


def test_the_interval_over_seeds_is_that_of_the_seeds_volumes():
    fronts = [np.array([[1.0, v]]) for v in (1.0, 2.0, 3.0)]
    estimate = volume_over_seeds(fronts, ZERO)
    assert estimate.value == pytest.approx(2)
    assert estimate.high - 2 == pytest.approx(4.302653 / 3**0.5)  # Student's t of 1, 2, 3
    assert estimate.high - 2 == pytest.approx(2 - estimate.low)
    assert estimate.n == 3
    with pytest.raises(ValueError, match="at least 2"):
        volume_over_seeds(fronts[:1], ZERO)


def test_the_interval_over_prompts_is_that_of_the_mean_for_one_objective():
    scores = rng().normal(1.0, 0.5, (1, 400, 1))
    estimate = volume_over_prompts(scores, np.zeros(1), rng=rng())
    spread = scores.std() / 20
    assert estimate.value == pytest.approx(scores.mean(), abs=0.1 * spread)
    assert estimate.low == pytest.approx(scores.mean() - 1.96 * spread, abs=0.3 * spread)
    assert estimate.high == pytest.approx(scores.mean() + 1.96 * spread, abs=0.3 * spread)
    assert estimate.n == 400


def test_points_that_share_their_prompts_are_resampled_together():
    """A second point that is the first one's mirror: v and 1 - v on every prompt. Their volume hardly moves."""
    values = (rng().random(200) > 0.5).astype(float)
    scores = np.stack([np.stack([values, values], 1), np.stack([1 - values, 1 - values], 1)])
    together = volume_over_prompts(scores, ZERO, rng=rng())
    apart = volume_over_prompts(np.stack([scores[0], rng().permutation(scores[1])]), ZERO, rng=rng())
    assert together.low > 0.2  # max(p, 1 - p)² is never below 1/4, and the interval is wide where points tie
    assert together.high - together.low < apart.high - apart.low
    with pytest.raises(ValueError, match="at least 2 prompts, got 1"):
        volume_over_prompts(scores[:, :1], ZERO, rng=rng())
    with pytest.raises(ValueError, match="finite"):
        volume_over_prompts(scores * np.nan, ZERO, rng=rng())
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="level must be in"):
            volume_over_prompts(scores, ZERO, rng=rng(), level=level)


def test_errors_have_the_covariance_of_the_means():
    scores = rng().normal(size=(2, 60, 2)) + rng().normal(size=(1, 60, 1))
    drawn = drawn_means(scores, rng=rng(), draws=20_000)
    want = np.cov(scores.transpose(1, 0, 2).reshape(60, 4).T) / 60
    got = np.cov(drawn.errors.reshape(-1, 4).T)
    np.testing.assert_allclose(got, want * 59 / 57, atol=0.05 * want.max())  # of chi-square with 59 degrees
    np.testing.assert_allclose(drawn.means, scores.mean(axis=1))


def test_an_objective_counts_on_the_prompts_it_applies_to():
    scores = np.array([[[1.0, math.nan], [2.0, 5.0], [math.nan, 7.0]]])
    drawn = drawn_means(scores, rng=rng(), draws=4000)
    assert (drawn.means.tolist(), drawn.n) == ([[1.5, 6.0]], 2)
    with pytest.raises(ValueError, match="at least 2 prompts, got 1"):
        drawn_means(scores[:, :2], rng=rng())


def test_the_luck_of_the_front_is_taken_away():
    """Six equal runs: the plain volume is too large, and a bootstrap's interval lies above the truth of one quarter."""
    source, values, plain, hits = rng(), [], [], 0
    for _ in range(60):
        scores = source.normal(0.5, 0.4, size=(6, 60, 2))
        got = volume_over_prompts(scores, ZERO, rng=source, resamples=200)
        values.append(got.value)
        plain.append(hypervolume(scores.mean(axis=1), ZERO))
        hits += got.low <= 0.25 <= got.high
    assert np.mean(values) - 0.25 < 0.6 * (np.mean(plain) - 0.25)
    assert hits >= 54


# --- pictures -------------------------------------------------------------------------------------------

RECORDS = [
    {"step": 1, "objectives/a": 0.1, "objectives/b": 0.9, "weights/a": 0.5, "weights/b": 0.5},
    {"step": 2, "objectives/a": "nan", "objectives/b": 0.8, "weights/a": 0.4, "weights/b": 0.6},
    {"step": 3, "loss": 1.0},
    {"step": 4, "objectives/a": 0.3, "objectives/b": 0.7, "weights/a": 0.3, "weights/b": 0.7},
]


def test_objectives_are_read_from_a_runs_metrics():
    names, points = objective_points(RECORDS)
    assert names == ["a", "b"]
    assert points.tolist() == [[0.1, 0.9], [0.3, 0.7]]
    assert objective_points([{"step": 1, "loss": 0.0}])[0] == []
    assert objective_points([{"step": 1, "loss": 0.0}])[1].shape == (0, 0)


def test_a_way_is_smoothed_over_the_last_five_steps():
    points = np.arange(14.0).reshape(7, 2)
    got = smoothed(points)
    assert got[0].tolist() == [0, 1]
    assert got[2].tolist() == points[:3].mean(axis=0).tolist()
    assert got[6].tolist() == points[2:7].mean(axis=0).tolist()


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, beside their bytes."""
    seen = []
    monkeypatch.setattr("eval.report.plots.Figure", lambda **kw: seen.append(Figure(**kw)) or seen[-1])
    return seen


def test_the_picture_of_fronts_has_a_panel_for_each_pair_and_marks_what_is_on_a_front(figures):
    seeds = [np.array([[0.0, 1, 0], [1, 0, 0], [0, 0.5, 0]]), np.array([[0.5, 0.5, 0.5]])]
    png = front_picture({"fix$ed": seeds, "upgrad": seeds[:1]}, ["a", "b", "c"])
    assert png.startswith(b"\x89PNG")
    axes = figures[0].axes
    assert [(a.get_xlabel(), a.get_ylabel()) for a in axes] == [("a", "b"), ("a", "c"), ("b", "c")]
    pale, filled = axes[0].collections[:2]
    assert pale.get_offsets().tolist() == [[0, 0.5]]
    assert filled.get_offsets().tolist() == [[0, 1], [1, 0]]
    assert axes[0].lines[0].get_xydata().tolist() == [[0, 1], [1, 0]]
    assert axes[0].lines[0].get_drawstyle() == "steps-pre"
    assert [text.get_text() for text in figures[0].legends[0].texts] == [r"fix\$ed", "upgrad"]


def test_the_picture_of_ways_begins_hollow_and_ends_filled(figures):
    way = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert trajectory_picture({"run": [way, way + 1]}, ["a", "b"]).startswith(b"\x89PNG")
    line, begin, end = figures[0].axes[0].lines[:3]
    assert line.get_xydata().tolist() == [[0, 0], [0.5, 1]]
    assert begin.get_xydata().tolist() == [[0, 0]]
    assert begin.get_markerfacecolor() == "white"
    assert end.get_xydata().tolist() == [[0.5, 1]]
    assert end.get_markerfacecolor() != "white"
    assert len(figures[0].legends[0].texts) == 1


def test_the_picture_of_weights_has_a_panel_for_each_run_that_logged_some(figures):
    assert weights_picture({"a": RECORDS, "b": [{"step": 1, "loss": 1.0}], "c": RECORDS}).startswith(b"\x89PNG")
    left, right = figures[0].axes
    assert (left.get_title(), right.get_title()) == ("a", "c")
    assert left.lines[1].get_xydata().tolist() == [[1, 0.5], [2, 0.6], [4, 0.7]]
    assert left.get_ylim() == pytest.approx((0, 0.735))
    assert weights_picture({"b": [{"step": 1, "loss": 1.0}]}) is None


@pytest.mark.parametrize(
    ("runs", "names"), [({}, ["a", "b"]), ({"r": [np.ones((2, 1))]}, ["a"]), ({"r": [np.ones((2, 3))]}, ["a", "b"])]
)
def test_runs_without_two_common_objectives_have_no_picture(runs, names):
    for picture in (front_picture, trajectory_picture):
        with pytest.raises(ValueError, match="at least two objectives of every run"):
            picture(runs, names)
