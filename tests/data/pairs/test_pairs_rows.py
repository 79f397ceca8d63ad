"""Rows of scored completions: what is read, and what is said of those that hold none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data import DataError
from align.data.commands.pairs import REVERSE, SELECTORS, build
from align.data.rows.pairs import RowError
from align.data.rows.scored import read_scored, text_of

ROW = {"prompt": "q ", "completions": ["a", "b", "c"], "rewards": [1.0, 3.0, 2.0]}
CHAT = [{"role": "user", "content": "q"}]


def bot(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "the prompt is missing"),
        ({"prompt": []}, "the prompt is missing"),
        ({"completions": None}, "no list of completions or responses"),
        ({"completions": "abc"}, "no list of completions or responses"),
        ({"completions": ["a", 1, "c"]}, "a completion is neither text nor a list of messages"),
        ({"completions": ["a", [{"role": "assistant"}], "c"]}, "a completion is neither text nor a list of messages"),
        ({"rewards": None}, "rewards must be a list of one for each of 3 completions, got no list"),
        ({"rewards": [1.0]}, "rewards must be a list of one for each of 3 completions, got 1"),
        ({"rewards": [1.0, "2", 3]}, "a reward is no number but '2'"),
        ({"responses": ["a"]}, "responses must be a list of objects with content and scores"),
        ({"responses": [{"scores": 1.0}]}, "responses must be a list of objects with content and scores"),
    ],
)
def test_rows_that_hold_no_scored_completions_are_named(change, message):
    with pytest.raises(DataError, match="1 of 2 rows cannot be used:\n  " + message + r".* \(row 2\)$"):
        build([ROW, ROW | change], "best_worst")


def test_bad_rows_are_counted_by_reason():
    rows = [ROW] + [ROW | {"prompt": ""}] * 12 + [ROW | {"rewards": []}]
    with pytest.raises(DataError) as error:
        build(rows, "best_worst", where="x")
    assert str(error.value) == (
        "x: 13 of 14 rows cannot be used:\n  the prompt is missing (rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... and 2 more)\n"
        "  rewards must be a list of one for each of 3 completions, got 0 (row 14)"
    )
    with pytest.raises(DataError, match=r"x: 12 of 12 rows(?s:.*)9' \(row 10\)\n  ... and 2 reasons more$"):
        build([ROW | {"rewards": [1, 2, f"{i}"]} for i in range(12)], "best_worst", where="x")


def test_rewards_too_far_apart_for_a_number_are_no_pair():
    built = build([ROW | {"rewards": [1.7e308, -1.7e308, math.nan]}], "best_worst")
    assert built.pairs == []
    assert built.refused == {"the rewards are too far apart for a number": 1}
    assert built.unscored == 1


def test_chat_and_text():
    read = read_scored({"prompt": CHAT, "completions": ["a", bot("b")], "rewards": [1, True]}, None, None)
    assert read.completions == [bot("a"), bot("b")]
    assert read.rewards == [1.0, 1.0]
    assert text_of(bot("a") + bot("b")) == "a\nb"
    assert build([{"prompt": "q", "completions": [bot("a"), bot("b")], "rewards": [1, 0]}], "best_worst").pairs
    with pytest.raises(RowError):
        read_scored({"prompt": CHAT}, None, None)


TEXTS = st.sampled_from(["", "a", "b, c", "punctuation:no_comma", "user", "assistant"])
NAMES = st.sampled_from(["role", "content", "scores", "x"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
COLUMNS = ("prompt", "completions", "rewards", "responses", "chosen", "rejected", "instruction_id_list", "kwargs")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, ANYTHING)), st.sampled_from([*SELECTORS, REVERSE]))
def test_rows_of_anything_are_read_or_named(row, select):
    try:
        built = build([row, row], select)
    except DataError as error:
        assert "2 of 2 rows cannot be used" in str(error)
        return
    assert len(built.pairs) % 2 == 0
    assert built.pairs or built.without.total() == 2


def test_what_the_prompt_depends_on_besides_goes_with_the_pairs():
    row = {"prompt": "q", "completions": ["a", "b"], "rewards": [1.0, 0.0], "system": "Be kind.", "tools": "[]"}
    (pair,) = build([row], "best_worst").pairs
    assert pair["prompt"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "q"}]
    assert pair["tools"] == "[]"
    with pytest.raises(DataError, match="the column system and the prompt's own system message differ"):
        build([{**row, "prompt": [{"role": "system", "content": "Be rude."}, *pair["prompt"][1:]]}], "best_worst")


def test_pairs_of_equal_texts_are_one_where_different_pairs_are_asked_for():
    row = {"prompt": "q", "completions": ["a", "a", "b", "b"], "rewards": [1.0, 1.0, 0.0, 0.0]}
    assert [(pair["chosen"], pair["rejected"]) for pair in build([row], "verified").pairs] == [("a", "b")]
