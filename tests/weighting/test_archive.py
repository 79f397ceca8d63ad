"""The Pareto archive and its hypervolume."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from weighting_oracles import inclusion_exclusion

from align.weighting import archive
from align.weighting.archive import Archive, exact_hypervolume, hypervolume, nondominated

UNIT = np.array([[0.0, 1.0], [0.0, 1.0]])


def points(*rows):
    return np.array(rows, dtype=float)


@st.composite
def clouds(draw, most=5):
    """Points on a coarse grid, so that ties, duplicates and points below the reference occur; and a reference."""
    objectives = draw(st.integers(1, 4))
    row = st.lists(st.integers(-2, 5), min_size=objectives, max_size=objectives)
    return points(*draw(st.lists(row, min_size=1, max_size=most))), np.array(draw(row), dtype=float)


@pytest.fixture(params=["moocore", "own"])
def solver(request, monkeypatch):
    if request.param == "moocore":
        pytest.importorskip("moocore")
    else:
        monkeypatch.setattr(archive, "has_moocore", lambda: False)


@pytest.mark.usefixtures("solver")
@pytest.mark.parametrize(
    ("rows", "volume"),
    [
        ([(1, 3), (2, 2), (3, 1)], 6.0),
        ([(1, 0.2), (0.6, 0.6), (0.2, 1)], 0.52),
        ([(k, 10 - k) for k in range(1, 10)], 45.0),
        ([(1, 2, 3), (2, 2, 1), (3, 1, 1)], 9.0),
        ([(2, 3, 4, 5)], 120.0),
        ([(4,), (7,)], 7.0),
        ([(2, 2), (5, -1), (-1, 5)], 4.0),
    ],
)
def test_volumes_by_hand(rows, volume):
    assert hypervolume(points(*rows), np.zeros(len(rows[0]))) == pytest.approx(volume, abs=1e-12)


@given(clouds())
@example((points((1, 2, 3), (2, 2, 1), (3, 1, 1)), np.zeros(3)))
def test_the_volume_is_that_of_a_union_of_boxes(cloud):
    values, reference = cloud
    expected = inclusion_exclusion(values, reference)
    above = values[(values > reference).all(axis=1)]
    assert hypervolume(values, reference) == pytest.approx(expected, abs=1e-9)
    assert (exact_hypervolume(above - reference) if len(above) else 0.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_own_volumes_agree_with_moocore_on_fronts(objectives):
    moocore = pytest.importorskip("moocore")
    front = np.abs(np.random.default_rng(0).normal(size=(30, objectives)))
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    expected = moocore.hypervolume(front, ref=np.zeros(objectives), maximise=True)
    assert exact_hypervolume(front) == pytest.approx(expected, rel=1e-10)


@given(clouds())
def test_the_order_of_points_and_of_objectives_does_not_matter(cloud):
    values, reference = cloud
    volume = hypervolume(values, reference)
    assert hypervolume(values[::-1].copy(), reference) == pytest.approx(volume, abs=1e-9)
    assert hypervolume(values[:, ::-1].copy(), reference[::-1].copy()) == pytest.approx(volume, abs=1e-9)


@given(clouds())
def test_only_points_that_no_other_dominates_are_kept_and_they_hold_the_volume(cloud):
    values, reference = cloud
    kept = nondominated(values)
    for row, keep in zip(values, kept, strict=True):
        assert keep == (not any((other >= row).all() and (other > row).any() for other in values))
    assert hypervolume(values[kept], reference) == pytest.approx(hypervolume(values, reference), abs=1e-9)


def test_nothing_has_no_volume_and_a_point_on_or_below_the_reference_none_either():
    assert hypervolume(np.empty((0, 2)), np.zeros(2)) == 0.0
    assert hypervolume(points((0, 5), (5, -1)), np.zeros(2)) == 0.0


@pytest.mark.parametrize("call", [lambda p: nondominated(p), lambda p: hypervolume(p, np.zeros(2))])
def test_values_that_are_not_finite_are_refused(call):
    with pytest.raises(ValueError, match="finite, got nan"):
        call(points((1, np.nan), (1, 1)))


@given(clouds(most=8))
def test_gains_add_up_to_the_volume_and_are_never_negative(cloud):
    values, reference = cloud
    bounds = np.stack([np.zeros(len(reference)), np.ones(len(reference))], axis=1)
    kept = Archive(bounds, reference)
    gains = [kept.add(row) for row in values]
    assert min(gains) >= 0
    assert sum(gains) == pytest.approx(hypervolume(values, reference), abs=1e-9)
    assert kept.volume == pytest.approx(sum(gains), abs=1e-9)
    assert nondominated(kept.points).all()
    assert len(np.unique(kept.points, axis=0)) == len(kept.points)


def test_asking_for_the_gain_keeps_nothing():
    kept = Archive(UNIT, np.zeros(2))
    assert kept.gain(np.array([0.5, 0.5])) == pytest.approx(0.25)
    assert kept.volume == 0.0


@pytest.mark.parametrize("worse", [(0.7, 0.4), (0.4, 0.9), (0.6, 0.6), (0.55, 0.6)])
def test_a_point_below_the_reference_dominated_or_known_gains_nothing(worse):
    """The first of them makes the authors' code raise."""
    kept = Archive(UNIT, np.array([0.5, 0.5]))
    assert kept.add(np.array([0.6, 0.6])) == pytest.approx(0.01)
    assert kept.add(np.array(worse)) == 0.0
    assert kept.points.tolist() == [[0.6, 0.6]]


def test_the_first_point_can_be_the_reference_and_lengths_can_be_minimised():
    """Accuracy, tokens (fewer is better), clarity, as in the paper; a checkpoint worse in one objective gains nothing."""
    kept = Archive(points((0, 1), (2000, 0), (0, 1)), None)
    assert [kept.add(kept.normalise(np.array(row))) for row in [(0.5, 1000.0, 0.5), (0.6, 900.0, 0.6)]] == [
        0.0,
        pytest.approx(0.1 * 0.05 * 0.1),
    ]
    assert kept.add(kept.normalise(np.array([0.7, 950.0, 0.4]))) == 0.0
    assert kept.add(kept.normalise(np.array([0.7, 1100.0, 0.7]))) == 0.0


def test_bounds_from_worse_to_better_are_a_change_of_sign():
    up, down = Archive(UNIT, np.zeros(2)), Archive(points((0, 1), (0, -1)), np.zeros(2))
    for x, y in [(0.2, 0.9), (0.8, 0.3), (0.5, 0.5)]:
        assert up.add(up.normalise(np.array([x, y]))) == down.add(down.normalise(np.array([x, -y])))


def test_a_saved_archive_goes_on_and_one_with_another_reference_is_refused():
    kept, other = Archive(UNIT, None), Archive(UNIT, None)
    for x in ([0.1, 0.1], [0.2, 0.9], [0.8, 0.3]):
        kept.add(np.array(x))
    other.load_state_dict(kept.state_dict())
    assert other.volume == kept.volume > 0
    assert other.add(np.array([0.5, 0.5])) == kept.add(np.array([0.5, 0.5])) > 0
    fresh = Archive(UNIT, None)
    fresh.load_state_dict(Archive(UNIT, None).state_dict())
    assert fresh.add(np.array([0.3, 0.3])) == 0.0
    with pytest.raises(ValueError, match="one reference"):
        Archive(UNIT, np.zeros(2)).load_state_dict(kept.state_dict())
