"""C-MORL on enumerated bandits: the real choice of points against figures that were computed another way, and by hand."""

import numpy as np
import pytest
import torch

from align.fronts.sparse import Member, buffered, crowding, front_of_members, sparsest, two_stages
from align.weighting.archive import hypervolume
from align.weighting.reward_rules import kept

CONVEX = np.array([[1, 0], [0.95, 0.35], [0.8, 0.65], [0.6, 0.8], [0.3, 0.93], [0, 1], [0.4, 0.4], [0.7, 0.2]])
"""Eight answers, two rewards; a policy is a mixture. The first six are the vertices of the front."""
DENTED = np.array([[1, 0], [0.95, 0.15], [0.7, 0.24], [0.5, 0.4], [0.33, 0.55], [0.2, 0.75], [0.1, 0.97], [0, 1]])
"""Eight policies that cannot be mixed, none dominated, most of them below the line between their neighbours."""
WEIGHTS = ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0))
INF = float("inf")


def shares_of(rewards, objective, other, floor, sharpness):
    """Mixtures of two answers at which the constrained optimum, or that of the log barrier, can lie."""
    for a in rewards:
        for b in rewards:
            slope, gain = a[other] - b[other], a[objective] - b[objective]
            yield a
            if slope and (sharpness is None or slope * gain < 0):
                at = floor if sharpness is None else floor - slope / (sharpness * gain)
                share = (at - b[other]) / slope
                if 0 <= share <= 1:
                    yield share * a + (1 - share) * b


def best(rewards, objective, floor, *, mixtures=True, sharpness=None):
    """The best policy towards an objective: the other at the floor or above, or with a log barrier there."""
    other = 1 - objective
    points = list(shares_of(rewards, objective, other, floor, sharpness)) if mixtures else list(rewards)
    if sharpness is None:
        return max((v for v in points if v[other] >= floor - 1e-12), key=lambda v: (round(v[objective], 12), v[other]))
    inside = [v for v in points if v[other] > floor]
    return max(inside, key=lambda v: v[objective] + np.log(v[other] - floor) / sharpness)


def fronts(rewards, extensions, *, retain=0.9, most=None, **how):
    first = [max(rewards, key=lambda v: (np.dot(w, v), v.min())) for w in WEIGHTS]

    def extend(member, objective, number):
        floors = kept(torch.tensor(member.values, dtype=torch.float64), retain)
        point = best(rewards, objective, float(floors[1 - objective]), **how)
        return Member(f"{member.name}-{objective}", tuple(point.tolist()))

    members = [Member(str(k), tuple(point.tolist())) for k, point in enumerate(first)]
    return two_stages(members, extend, extensions=extensions, points=2, most=most)


def values(front):
    return np.array([member.values for member in front])


@pytest.mark.parametrize(
    ("rewards", "how", "points", "volumes"),
    [
        (CONVEX, {}, (3, 5, 9, 13), (0.52, 0.65730769, 0.7088275, 0.72437713)),
        (CONVEX, {"sharpness": 20}, (3, 7, 10, 13), (0.52, 0.67154579, 0.71018701, 0.72977137)),
        (CONVEX, {"retain": 1.0}, (3, 3, 3), (0.52, 0.52, 0.52)),
        (DENTED, {"mixtures": False, "retain": 0.7}, (3, 5, 7, 7), (0.1425, 0.3075, 0.375, 0.375)),
        (DENTED, {"mixtures": False}, (3, 4, 4), (0.1425, 0.2245, 0.2245)),
    ],
)
def test_fronts_grow_as_they_do_by_exact_programs(rewards, how, points, volumes):
    found = fronts(rewards, len(points) - 1, **how)
    found += found[-1:] * (len(points) - len(found))  # nothing was left to extend
    assert tuple(map(len, found)) == points
    measured = [hypervolume(values(front), np.zeros(2)) for front in found]
    np.testing.assert_allclose(measured, volumes, atol=1e-8)


def test_the_first_extension_finds_these_points():
    plain, barrier = fronts(CONVEX, 1)[1], fronts(CONVEX, 1, sharpness=20)[1]
    np.testing.assert_allclose(values(plain)[[1, 3]], [[0.36923077, 0.9], [0.9, 0.45]], atol=1e-8)
    expected = [[0.21428571, 0.95], [0.31923077, 0.92166667], [0.925, 0.4], [0.95, 0.35]]
    np.testing.assert_allclose(values(barrier)[[1, 2, 4, 5]], expected, atol=1e-8)


def test_crowding_by_hand():
    np.testing.assert_allclose(crowding(CONVEX[:6]), [INF, 0.85, 0.8, 0.78, 0.8, INF])
    np.testing.assert_allclose(crowding(CONVEX[:6] * [10, 0.1]), crowding(CONVEX[:6]))  # whatever the unit
    three = np.array([[1, 0, 0.2], [0.2, 1, 0], [0, 0.3, 1], [0.5, 0.5, 0.5], [0.6, 0.7, 0.1]])
    np.testing.assert_allclose(crowding(three), [INF, INF, INF, 1.6, 1.2])
    same = np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]])  # an objective without a range parts nobody
    np.testing.assert_allclose(crowding(same), [INF, 1.0, INF])


def named(points):
    return [Member(str(k), tuple(map(float, point))) for k, point in enumerate(points)]


def test_a_front_has_each_point_once_and_nobody_dominated():
    front = front_of_members(named([[1, 0], [0, 1], [0.2, 0.2], [0.2, 0.2 + 1e-14], [0.1, 0.1]]))
    assert [member.name for member in front] == ["1", "2", "0"]


def test_ends_are_the_sparsest_and_nobody_is_extended_twice():
    front = named([[0.0, 1.0], [0.1, 0.9], [0.8, 0.3], [1.0, 0.0]])
    assert [m.name for m in sparsest(front, (), 3)] == ["0", "3", "2"]
    assert [m.name for m in sparsest(front, {"0", "2"}, 3)] == ["3", "1"]


def test_the_buffer_drops_the_most_crowded():
    front = named([[0.0, 1.0], [0.1, 0.95], [0.15, 0.9], [0.6, 0.5], [1.0, 0.0]])
    assert [m.name for m in buffered(front, 4)] == ["0", "2", "3", "4"]
    assert buffered(front, None) == front
    assert all(len(found) <= 4 for found in fronts(CONVEX, 3, most=4))
