"""Which completions become pairs: by hand, against order statistics, and what must hold of any rewards."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data.making.difficulty import difficulty, loss_threshold, of_difficulty, with_difficulty
from align.data.making.selectors import (
    NoPair,
    all_pairs,
    best,
    best_sigma,
    best_worst,
    best_worst_of,
    has_reward,
    margin,
    verified,
)
from align.errors import DataError

NAN, INF = math.nan, math.inf
REWARDS = st.lists(
    st.none() | st.floats() | st.integers(-3, 3) | st.floats(-1, 1), min_size=0, max_size=12
)  # nan and inf too
RNG = np.random.default_rng


def sides(choices):
    return [(choice.chosen, choice.rejected) for choice in choices]


SELECT = {
    "best_worst": lambda rewards: best_worst(rewards),
    "best_sigma": lambda rewards: best_sigma(rewards),
    "best_worst_of": lambda rewards: best_worst_of(rewards, RNG(0), k=2),
    "margin": lambda rewards: margin(rewards, min_gap=0.0, min_reward=-1e308),
    "all_pairs": lambda rewards: all_pairs(rewards),
}


def test_the_best_against_the_worst():
    assert sides(best_worst([1.0, 5, -2.0, 3])) == [(1, 2)]
    assert sides(best_worst([2, 7, 7, 2])) == [(1, 0)], "among equals the earlier"
    assert sides(best_worst([NAN, 1, INF, None, -INF, 0])) == [(1, 5)]


def test_the_best_alone_is_there_whenever_one_has_a_reward():
    assert sides(best([1.0, 5, None, 5])) == [(1, 1)]
    assert sides(best([2.0, 2.0])) == [(0, 0)]
    assert sides(best([NAN, 1])) == [(1, 1)]
    with pytest.raises(NoPair, match="no completion has a reward"):
        best([None, INF])


@pytest.mark.parametrize(
    ("sigmas", "rejected"),
    [(-2.0, 1), (-1.0, 2), (0.0, 4), (1.0, 5), (-3.0, 0)],
)
def test_the_rejected_is_the_nearest_to_its_place_in_standard_deviations(sigmas, rejected):
    """Mean 0 and standard deviation 1 by construction: the sum is 0, and the sum of squares is n."""
    rewards = [-2.5, -2.1, -1.0, -0.4, 0.0, 1.0]
    rest = [-sum(rewards) / 40] * 40
    free = len(rewards) + 40 + 2 - sum(x * x for x in rewards + rest)
    rewards = [*rewards, *rest, math.sqrt(free / 2), -math.sqrt(free / 2)]
    scale = [10 + 3 * reward for reward in rewards]
    assert np.mean(scale) == pytest.approx(10)
    assert np.std(scale) == pytest.approx(3)
    nearest = min((abs(r - sigmas), i) for i, r in enumerate(rewards))[1]
    assert sides(best_sigma(scale, sigmas=sigmas)) == [(int(np.argmax(rewards)), nearest)]
    assert nearest == rejected


def test_the_standard_deviation_is_that_of_the_fitted_gaussian():
    """Of (0, 1, 4, 9) the mean is 3.5, the deviation 3.5 over n and 4.04 over n - 1; halfway between 0 and 1 lies 0.5."""
    assert sides(best_sigma([0.0, 1.0, 4.0, 9.0], sigmas=-0.8)) == [(3, 1)]  # 0.7 over n, 0.27 over n - 1


def test_of_two_equally_near_the_worse_is_rejected():
    assert sides(best_sigma([4.0, 6.0, 5.0, 1.0, 9.0], sigmas=0.0)) == [(4, 2)]
    assert sides(best_sigma([6.0, 4.0, 1.0, 9.0], sigmas=0.0)) == [(3, 1)]
    assert sides(best_sigma([4.0, 4.0, 1.0, 6.0, 10.0], sigmas=0.0)) == [(4, 0)]


@pytest.mark.parametrize("unit", [2.0**1000, 2.0**-1000])
def test_rewards_may_be_in_any_unit(unit):
    rewards = [0.0, 1.0, 4.0, 9.0, 5.5]
    for sigmas in (-2.0, -0.8, 0.0, 0.5):
        assert best_sigma([reward * unit for reward in rewards], sigmas=sigmas) == best_sigma(rewards, sigmas=sigmas)


def test_whatever_is_as_good_as_the_best_is_not_rejected():
    assert sides(best_sigma([9.0, 0.0, 9.0], sigmas=3.0)) == [(0, 1)]


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=5))
def test_up_to_five_completions_mean_minus_two_deviations_is_the_worst(rewards):
    """No value of n is further than sqrt(n - 1) standard deviations from their mean."""
    if len(set(rewards)) > 1:
        ((_, rejected),) = sides(best_sigma(rewards))
        assert rewards[rejected] == pytest.approx(min(rewards), abs=1e-9 * max(map(abs, rewards)))


def test_with_many_completions_the_two_rules_differ():
    rewards = RNG(0).normal(size=400).tolist()
    ((_, two_sigma),) = sides(best_sigma(rewards))
    ((_, worst),) = sides(best_worst(rewards))
    assert rewards[two_sigma] == pytest.approx(np.mean(rewards) - 2 * np.std(rewards), abs=0.05)
    assert rewards[worst] < rewards[two_sigma] - 0.3


def test_the_worst_of_five_is_where_order_statistics_have_it():
    """Of a Gaussian the expected least of 5 is at -1.163 deviations, of 29 at -2.03: n times the integral of x f (1-F)^(n-1)."""
    x = np.linspace(-8, 8, 100_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    above = 1 - np.cumsum(density) * (x[1] - x[0])
    expected = {k: float(np.sum(x * k * density * above ** (k - 1)) * (x[1] - x[0])) for k in (2, 5, 29)}
    assert expected[2] == pytest.approx(-1 / math.sqrt(math.pi), abs=1e-3)
    assert expected[5] == pytest.approx(-1.163, abs=1e-3)
    assert expected[29] == pytest.approx(-2.0, abs=0.05)
    rng = RNG(0)
    for k, value in expected.items():
        found = []
        for _ in range(800):
            rewards = rng.normal(size=40).tolist()
            found.append(rewards[best_worst_of(rewards, rng, k=k)[0].rejected])
        assert np.mean(found) == pytest.approx(value, abs=4 * np.std(found) / math.sqrt(len(found)))


def test_the_worst_of_k_takes_the_best_of_all_and_draws_without_replacement():
    rewards = [3.0, 9.0, 1.0, 2.0, NAN]
    assert sides(best_worst_of(rewards, RNG(1), k=4)) == [(1, 2)], "all of them drawn: the worst of all"
    drawn = {sides(best_worst_of(rewards, RNG(seed), k=2))[0] for seed in range(60)}
    assert drawn == {(1, 0), (1, 2), (1, 3)}
    assert sides(best_worst_of(rewards, RNG(5), k=2)) == sides(best_worst_of(rewards, RNG(5), k=2))
    with pytest.raises(NoPair, match="fewer than 5 completions have a reward"):
        best_worst_of(rewards, RNG(0))
    with pytest.raises(NoPair, match="the 1 drawn completions are all as good as the best"):
        [best_worst_of([1.0, 2.0], RNG(seed), k=1) for seed in range(20)]


def test_clear_margins_with_a_good_winner():
    rewards = [6.0, 5, 4.0, 3.0, 1.0, NAN]
    assert sides(margin(rewards)) == [(0, 2), (0, 3), (0, 4), (1, 3), (1, 4)]
    assert sides(margin(rewards, min_gap=1.0, min_reward=6.0)) == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert sides(margin([0.3, 0.1], min_gap=0.2, min_reward=0.0)) == [(0, 1)], "0.3 - 0.1 < 0.2 in floating point"
    assert sides(margin([1.0, 1.0, 0.0], min_gap=0.0, min_reward=0.0)) == [(0, 2), (1, 2)]
    with pytest.raises(NoPair, match="no completion has a reward of at least 5"):
        margin([4.0, 1.0])
    with pytest.raises(NoPair, match="no two rewards differ by at least 2"):
        margin([6.0, 5.0])


def test_correct_against_wrong():
    assert sides(verified([1, 0, True, False, None], RNG(0))) == [(0, 1), (0, 3), (2, 1), (2, 3)]
    some = sides(verified([1.0] * 4 + [0.0] * 4, RNG(0), most=10))
    assert len(set(some)) == len(some) == 10
    assert all(i < 4 <= j for i, j in some)
    assert some == sides(verified([1.0] * 4 + [0.0] * 4, RNG(0)))
    assert some != sides(verified([1.0] * 4 + [0.0] * 4, RNG(1)))
    assert some == sorted(some)
    with pytest.raises(NoPair, match="no answer is wrong"):
        verified([1, 1], RNG(0))
    with pytest.raises(NoPair, match="no answer is correct"):
        verified([0, 0], RNG(0))
    with pytest.raises(ValueError, match="must be 1 for correct and 0 for wrong"):
        verified([1, 0.5, 0], RNG(0))


def test_drawn_pairs_are_spread_evenly():
    counts = Counter(pair for seed in range(900) for pair in sides(verified([1, 1, 0, 0, 0], RNG(seed), most=2)))
    assert len(counts) == 6
    assert all(abs(count - 300) < 60 for count in counts.values())


def test_every_two_with_the_weight_of_their_number():
    assert all_pairs([1.0, None, 3.0, 1.0]) == [(2, 0, 0.5), (0, 3, 0.5), (2, 3, 0.5)]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=2, max_size=9))
def test_weighted_pairs_add_up_to_the_loss_of_k_samples(samples):
    """CoPG: the sum over i > j of (m_i - m_j)^2 / (k - 1), with m = R - beta * log-ratio."""
    rewards, rest = [float(reward) for reward, _ in samples], [other for _, other in samples]
    m = np.array(rewards) - np.array(rest)
    k = len(m)
    expected = sum((m[i] - m[j]) ** 2 for i in range(k) for j in range(i)) / (k - 1)
    got = sum((choice.weight or 0.0) * (m[choice.chosen] - m[choice.rejected]) ** 2 for choice in all_pairs(rewards))
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert expected == pytest.approx(k * m.var() * k / (k - 1), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", SELECT)
@given(REWARDS)
def test_the_chosen_has_the_higher_reward_or_there_is_no_pair_and_a_reason(name, rewards):
    try:
        choices = SELECT[name](rewards)
    except NoPair as reason:
        finite = [reward for reward in rewards if has_reward(reward)]
        assert len(finite) < 2 or (len(set(finite)) == 1 and name != "all_pairs") or name == "best_worst_of"
        assert str(reason)
        return
    assert choices
    assert len(set(sides(choices))) == len(choices)
    for chosen, rejected, _ in choices:
        high, low = rewards[chosen], rewards[rejected]
        assert has_reward(high)
        assert has_reward(low)
        assert chosen != rejected
        assert high > low or (name == "all_pairs" and high == low)
        if name in ("best_worst", "best_sigma", "best_worst_of"):
            assert high == max(filter(has_reward, rewards))


@pytest.mark.parametrize("name", SELECT)
@pytest.mark.parametrize("rewards", [[], [1.0], [NAN, INF], [None, 2, NAN]])
def test_fewer_than_two_rewards_are_no_pair(name, rewards):
    with pytest.raises(NoPair, match="fewer than two completions have a reward"):
        SELECT[name](rewards)


@pytest.mark.parametrize("name", [name for name in SELECT if name != "all_pairs"])
def test_equal_rewards_are_no_pair(name):
    with pytest.raises(NoPair, match="all rewards are equal"):
        SELECT[name]([2.0, 2, NAN, 2.0])


def test_difficulty_is_what_the_reference_says_of_the_rejected():
    assert difficulty([-10.0, -3.0], [-5.0, -33.0]) == [5.0, -30.0]
    assert loss_threshold([5.0, 30.0, 0.0], 0.1) == pytest.approx([0.474077, 0.048587, math.log(2)], abs=1e-6)
    assert loss_threshold([1e6, -1e6], 0.1) == [0.0, 1e5]


@given(*[st.floats(-50, 50)] * 4, st.floats(0.01, 2))
def test_a_pair_is_ranked_right_exactly_if_its_loss_is_at_most_the_threshold(chosen, rejected, ref_w, ref_l, beta):
    """Either side from its own definition: the policy's log-probabilities, and the DPO loss."""
    loss = math.log1p(math.exp(-beta * ((chosen - ref_w) - (rejected - ref_l))))
    (threshold,) = loss_threshold(difficulty([ref_w], [ref_l]), beta)
    if abs(chosen - rejected) > 1e-6 and loss > 1e-9:
        assert (chosen > rejected) == (loss < threshold)


def test_pairs_of_a_range_of_difficulty():
    rows = [{"n": n, "ref_chosen_logps": -1.0 * n, "ref_rejected_logps": 0} for n in range(5)]
    pairs = with_difficulty(rows)
    assert [pair["difficulty"] for pair in pairs] == [0, 1, 2, 3, 4]
    assert "difficulty" not in rows[0]
    assert [pair["n"] for pair in of_difficulty(pairs, low=1, high=3)] == [1, 2, 3]
    assert [pair["n"] for pair in of_difficulty(pairs, low=0.5, high=1.0, quantiles=True)] == [2, 3, 4]
    assert of_difficulty([], low=0.0, high=0.5, quantiles=True) == []
    assert with_difficulty([]) == []
    with pytest.raises(ValueError, match="no range of quantiles"):
        of_difficulty(pairs, low=0, high=2, quantiles=True)
    with pytest.raises(ValueError, match="from nan to 1 is no range"):
        of_difficulty(pairs, low=NAN, high=1)
    bad = [
        rows[0],
        rows[1] | {"ref_chosen_logps": None},
        rows[2],
        {"ref_chosen_logps": -INF, "ref_rejected_logps": 0.0},
    ]
    with pytest.raises(
        DataError, match=r"2 of 4 pairs lack finite ref_chosen_logps and ref_rejected_logps: rows 2, 4; "
    ):
        with_difficulty(bad)
