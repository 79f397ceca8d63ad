"""Control prefixes, rewards in context, and what to ask for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data.prompts.control import (
    TARGETS,
    appended,
    control_prefixes,
    front_targets,
    normalised,
    prefixed,
    reward_context,
    rewards_in_context,
    targets,
    top_of_any,
)

RNG = np.random.default_rng
CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
WEIGHTS = st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(lambda weights: max(weights) > 1e-6)


def rows(count):
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(count)]


def test_text_goes_to_either_end_of_the_last_message():
    before = [dict(message) for message in CHAT]
    assert prefixed("q", "good ") == "good q"
    assert appended("q", " <a> 1.0") == "q <a> 1.0"
    assert prefixed(CHAT, "good ") == [CHAT[0], {"role": "user", "content": "good q"}]
    assert appended(CHAT, " x") == [CHAT[0], {"role": "user", "content": "q x"}]
    assert before == CHAT, "the prompt itself stays"
    for bad in ([], [{"role": "assistant", "content": "a"}], 3, ["q"], [{"role": "user", "content": None}]):
        with pytest.raises(ValueError, match="messages of which the last is the user's"):
            prefixed(bad, "good ")


def test_prefixes_say_which_side_of_the_threshold():
    made = control_prefixes(rows(4), [0.0, 1, 0.5, -3], RNG(0), threshold=0.5, drop=0.0, good="+", bad="-")
    assert [row["prompt"] for row in made] == ["-p0", "+p1", "+p2", "-p3"], "at the threshold it is good"
    assert [row["completion"] for row in made] == ["c0", "c1", "c2", "c3"]
    made = control_prefixes(rows(5), [5.0, 1, 2, 3, 4], RNG(0), quantile=0.75, drop=0.0, good="+", bad="-")
    assert [row["prompt"][0] for row in made] == ["+", "-", "-", "-", "+"]
    assert control_prefixes([], [], RNG(0), quantile=0.5) == []


def test_a_share_of_rows_gets_no_prefix_the_same_with_the_same_seed():
    made = control_prefixes(rows(4000), [1.0] * 4000, RNG(3), threshold=0.0, drop=0.1, good="+", bad="-")
    bare = [row["prompt"][0] == "p" for row in made]
    assert sum(bare) == pytest.approx(400, abs=4 * math.sqrt(360))
    assert made == control_prefixes(rows(4000), [1.0] * 4000, RNG(3), threshold=0.0, drop=0.1, good="+", bad="-")
    for drop, first in ((0.0, "+"), (1.0, "p")):
        made = control_prefixes(rows(50), [1.0] * 50, RNG(0), threshold=0.0, drop=drop, good="+", bad="-")
        assert {row["prompt"][0] for row in made} == {first}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": None}, "either a threshold or a quantile"),
        ({"quantile": 0.5}, "either a threshold or a quantile"),
        ({"drop": 1.5}, r"must be in \[0, 1\], got 1.5 and None"),
        ({"threshold": None, "quantile": -0.5}, r"must be in \[0, 1\]"),
        ({"good": "x", "bad": "x"}, "good and bad must differ"),
        ({"rewards": [1.0, math.nan]}, r"rewards of reward: row 2 is not finite \(1 in all\)"),
        ({"rewards": [1.0]}, "rewards of reward: 1 for 2 rows"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    options = {"rewards": [1.0, 2.0], "threshold": 0.0} | change
    with pytest.raises(ValueError, match=message):
        control_prefixes(rows(2), options.pop("rewards"), RNG(0), **options)


def test_rewards_are_written_to_one_decimal():
    assert reward_context({"a": 1.25, "b": -0.04, "c": -0.26, "d": 3}) == " <a> 1.2 <b> 0.0 <c> -0.3 <d> 3.0"


def test_normalised_by_hand():
    scores, of = normalised({"a": [1, 3], "b": [7.0, 7.0]})
    assert scores == {"a": [-1.0, 1.0], "b": [0.0, 0.0]}
    assert of == {"a": (2.0, 1.0), "b": (7.0, 1.0)}
    for bad in ({}, {"a": []}, {"a": [1.0], "b": [1.0, 2.0]}, {"a": [1.0, math.inf]}):
        with pytest.raises(ValueError, match="rewards"):
            normalised(bad)


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=20))
def test_normalised_rewards_have_mean_0_and_deviation_1_and_can_be_mapped_back(rewards):
    scores, of = normalised({"a": rewards})
    mean, deviation = of["a"]
    largest = max(map(abs, rewards))
    assert [score * deviation + mean for score in scores["a"]] == pytest.approx(rewards, abs=1e-9 * largest + 1e-320)
    if max(rewards) - min(rewards) > 1e-6 * largest:
        assert np.mean(scores["a"]) == pytest.approx(0, abs=1e-6)
        assert np.std(scores["a"]) == pytest.approx(1)


def test_equal_rewards_are_zero_whatever_they_are():
    """The mean of many 0.1 is not 0.1 in floating point; the deviation would be 1e-17 and the scores 1."""
    assert normalised({"a": [0.1] * 7})[0] == {"a": [0.0] * 7}


def test_rewards_in_context_of_text_and_chat():
    made = rewards_in_context(
        [{"prompt": "p", "completion": "x"}, {"prompt": CHAT, "n": 1}], {"fun": [1.0, 3.0], "safe": [0.2, 0.1]}
    )
    assert made[0] == {"prompt": "p <fun> -1.0 <safe> 1.0", "completion": "x"}
    assert made[1] == {"prompt": [CHAT[0], {"role": "user", "content": "q <fun> 1.0 <safe> -1.0"}], "n": 1}
    with pytest.raises(ValueError, match="rewards of fun: 1 for 2 rows"):
        rewards_in_context(rows(2), {"fun": [1.0]})


def test_targets_in_closed_form():
    half = math.sqrt(0.5)
    assert targets([0.5, 0.5], "linf") == [1.0, 1.0]
    assert targets([0.5, 0.5], "l2") == pytest.approx([half, half])
    assert targets([0.5, 0.5], "linear") == [0.5, 0.5]
    assert targets([7, 3], "linf") == pytest.approx([1.0, 0.6])
    assert targets([3, 4], "l2") == pytest.approx([0.6, 0.8])
    assert targets([3, 1, 0], "linear", low=-2, high=2) == pytest.approx([1.0, -1.0, -2.0])
    assert targets([1, 0], "l2") == targets([1, 0], "linf") == targets([1, 0], "linear") == [1.0, 0.0]
    assert targets([1e-300, 1e-300], "l2") == pytest.approx([half, half])
    for bad in ([], [0, 0], [-1, 2], [math.nan, 1]):
        with pytest.raises(ValueError, match="weights must be finite"):
            targets(bad, "l2")
    with pytest.raises(ValueError, match="unknown rule 'l1'; one of l2, linf, linear"):
        targets([1], "l1")


@pytest.mark.parametrize("rule", TARGETS)
@given(WEIGHTS, st.floats(0.01, 100))
def test_targets_keep_the_order_and_forget_the_scale_of_the_weights(rule, weights, scale):
    asked = targets(weights, rule)
    assert asked == pytest.approx(targets([weight * scale for weight in weights], rule), abs=1e-9)
    assert all(0 <= target <= 1 + 1e-12 for target in asked)
    assert asked[int(np.argmax(weights))] == max(asked)
    if rule == "linf":
        assert max(asked) == pytest.approx(1.0), "what is worth most is asked for in full"
    norm = {"l2": np.linalg.norm(asked), "linear": sum(asked), "linf": 1.0}[rule]
    assert norm == pytest.approx(1.0)


@given(WEIGHTS, st.integers(0, 1000))
def test_l2_targets_are_worth_most_on_the_unit_ball(weights, seed):
    other = np.abs(RNG(seed).normal(size=len(weights)))
    assert np.dot(weights, targets(weights, "l2")) >= np.dot(weights, other / np.linalg.norm(other)) - 1e-9


def test_an_online_round_asks_for_the_most_of_all_objectives_but_one():
    rng, low, high = RNG(0), [-1.0, 0, -2], [1.0, 5, 2]
    asked = np.array([front_targets(rng, low, high) for _ in range(3000)])
    below = asked < np.array(high)
    assert (below.sum(axis=1) == 1).all()
    assert below.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.04)
    for column in range(3):
        drawn = asked[below[:, column], column]
        assert drawn.min() >= low[column]
        assert drawn.mean() == pytest.approx((low[column] + high[column]) / 2, abs=0.25)
    assert front_targets(RNG(4), low, high) == front_targets(RNG(4), low, high)
    for bad in (([], []), ([1.0], [0.0]), ([0.0], [1.0, 1.0]), ([math.nan], [1.0])):
        with pytest.raises(ValueError, match="front_targets: bounds"):
            front_targets(RNG(0), *bad)


def test_an_online_round_keeps_the_top_of_any_objective():
    rewards = {"a": list(range(10)), "b": [9, 0, 0, 0, 0, 0, 0, 0, 0, 1]}
    assert top_of_any(rewards, quantile=0.7) == list(range(10)), "most rows have the quantile of b itself"
    assert top_of_any({"a": list(range(10))}, quantile=0.7) == [7, 8, 9]
    assert top_of_any({"a": list(range(10)), "b": list(range(9, -1, -1))}, quantile=0.7) == [0, 1, 2, 7, 8, 9]
    assert top_of_any({"a": []}) == []
