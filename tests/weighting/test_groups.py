"""Groups of annotators that were planted are found, and not where they cannot be; max-min equals its dual."""

import numpy as np
import pytest

from align.weighting.groups import adjusted_rand, find_groups, max_min_policy

GROUPS = np.array([[1.5, 0.5, 0.0, -0.5, -1.5, 0.3], [-1.5, 0.5, 0.3, -0.5, 1.5, 0.0]])
REF = np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.1])


def planted(pairs, seed, people=40, minority=10):
    rng = np.random.default_rng(seed)
    truth = (np.arange(people) < minority).astype(int)
    annotator = np.repeat(np.arange(people), pairs)
    i = rng.integers(0, 6, len(annotator))
    j = (i + rng.integers(1, 6, len(annotator))) % 6
    gap = GROUPS[truth[annotator], i] - GROUPS[truth[annotator], j]
    first = rng.random(len(annotator)) < 1 / (1 + np.exp(-gap))
    return truth, annotator, np.where(first, i, j), np.where(first, j, i), rng


@pytest.mark.parametrize("soft", [False, True])
def test_planted_groups_are_found_at_twenty_pairs_and_doubted_at_two(soft):
    agreement = []
    for seed in range(3):
        truth, annotator, winner, loser, rng = planted(20, seed)
        found = find_groups(annotator, winner, loser, 2, rng=rng, soft=soft)
        agreement.append(adjusted_rand(truth, found.members))
        assert found.doubt is None
        for group in (0, 1):  # the rewards are those of its members
            theirs = found.rewards[np.bincount(found.members[truth == group]).argmax()]
            assert np.corrcoef(theirs, GROUPS[group])[0, 1] > 0.9
    assert np.mean(agreement) > 0.9
    truth, annotator, winner, loser, rng = planted(2, 0)
    few = find_groups(annotator, winner, loser, 2, rng=rng, soft=soft)
    assert few.doubt == "2 pairs an annotator, at the median; below 10 groups are not found"


def test_one_group_in_truth_is_doubted():
    rng = np.random.default_rng(0)
    annotator = np.repeat(np.arange(20), 10)
    winner = rng.integers(0, 6, len(annotator))
    loser = (winner + rng.integers(1, 6, len(annotator))) % 6
    swap = rng.random(len(annotator)) > 1 / (1 + np.exp(-0.3 * (GROUPS[0][winner] - GROUPS[0][loser])))
    found = find_groups(annotator, np.where(swap, loser, winner), np.where(swap, winner, loser), 2, rng=rng)
    assert found.doubt is not None
    assert "with probability" in found.doubt


def test_soft_shares_are_probabilities_and_hard_ones_decide():
    _, annotator, winner, loser, rng = planted(5, 1)
    soft = find_groups(annotator, winner, loser, 2, rng=rng, soft=True, restarts=2)
    np.testing.assert_allclose(soft.shares.sum(axis=1), 1)
    assert ((soft.shares > 0.01) & (soft.shares < 0.99)).any()
    hard = find_groups(annotator, winner, loser, 2, rng=rng, restarts=2)
    assert set(np.unique(hard.shares)) == {0.0, 1.0}
    with pytest.raises(ValueError, match="from 2 to the number of annotators"):
        find_groups(annotator, winner, loser, 1, rng=rng)


def test_adjusted_rand_by_hand():
    a = np.array([0, 0, 1, 1])
    assert adjusted_rand(a, 1 - a) == 1.0
    assert adjusted_rand(a, np.array([0, 1, 0, 1])) == pytest.approx(-0.5)
    assert adjusted_rand(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(0.24242424)


@pytest.mark.parametrize(
    ("beta", "weight", "utility", "value"),
    [(0.5, 0.41255257, 0.22960224, 0.12608922), (0.1, 0.4843519, 0.48167617, 0.34392424)],
)
def test_max_min_equals_its_dual(beta, weight, utility, value):
    found = max_min_policy(GROUPS, REF, beta)
    np.testing.assert_allclose(found.weights, [weight, 1 - weight], atol=1e-8)
    np.testing.assert_allclose(found.utilities, [utility, utility], atol=1e-8)
    assert found.primal == pytest.approx(value, abs=1e-8)
    assert found.dual == pytest.approx(found.primal, abs=1e-10)


def test_two_groups_and_a_compromise_weigh_the_same():
    found = max_min_policy(np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.6]]), np.full(3, 1 / 3), 0.1)
    np.testing.assert_allclose(found.weights, [0.5, 0.5], atol=1e-9)
    assert found.policy.argmax() == 2


def test_who_is_always_worse_off_has_all_the_weight():
    found = max_min_policy(np.array([[1.0, 0.5, 0.0], [2.0, 1.5, 0.9]]), np.full(3, 1 / 3), 0.5)
    np.testing.assert_allclose(found.weights, [1, 0], atol=1e-9)


def test_three_groups_equal_their_dual_too():
    rewards = np.array([[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.4]])
    found = max_min_policy(rewards, np.full(4, 0.25), 0.2)
    assert found.dual == pytest.approx(found.primal, abs=1e-6)
