"""Which rows are hard, lonely or poor: thresholds against independent numbers, and what is asked about rows."""

import numpy as np
import pytest

from align.data.making.diagnosis import Figures, flags, limits, nearest, read_rating
from align.diagnosis.asked import Rewritten, ratings, rewritten

ONE = {"hard": 1.0, "lonely": 1.0, "poor": 1.0}
NAN = float("nan")


def flagged(before=(), after=(), similarity=(), rating=(), **sigmas):
    rows = max(map(len, (before, after, similarity, rating)))
    figures = Figures(*(np.array(each or [NAN] * rows, dtype=float) for each in (before, after, similarity, rating)))
    return flags(figures, limits(figures, ONE | sigmas))


def names(found):
    return {index: own for index, own in enumerate(found) if own}


def test_a_row_is_hard_where_both_losses_are_far_above_the_mean():
    before, after = [1.0, 1.1, 0.9, 3.0, 2.6], [0.8, 0.9, 0.7, 2.5, 1.0]
    assert names(flagged(before, after)) == {3: ["hard"]}
    assert names(flagged(before, [0.8, 0.9, 0.7, 1.0, 2.5])) == {}  # of the one before, of the other after
    assert names(flagged([1.0, 1.0, 1.0, 3.0], [1.0, 1.0, 1.0, 3.0], hard=1.8)) == {}


def test_a_row_is_poor_or_lonely_far_below_the_mean():
    assert names(flagged(rating=[8.0, 7.5, 9.0, 8.5, 3.0])) == {4: ["poor"]}
    # 1.789 deviations of a sample below the mean, 2 of the population
    assert names(flagged(rating=[1.0, 1.0, 1.0, 1.0, 0.0], poor=1.9)) == {}
    assert names(flagged(similarity=[1.0, 1.0, 1.0, 1.0, 0.0], lonely=1.9)) == {4: ["lonely"]}
    assert names(flagged(similarity=[0.9, 0.9, 0.9, 0.2], rating=[9, 9, 9, 1])) == {3: ["lonely", "poor"]}


def test_equal_figures_and_those_that_are_missing_flag_nothing():
    assert names(flagged(rating=[0.1, 0.1, 0.1], poor=0.0)) == {}
    assert names(flagged(rating=[8.0, NAN, 7.5, 9.0, 8.5, NAN, 3.0])) == {6: ["poor"]}
    assert names(flagged(rating=[NAN, NAN, 3.0])) == {}


def test_the_nearest_rows_are_others_by_their_cosine(monkeypatch):
    vectors = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [-1.0, 0.0]])
    half = np.sqrt(0.5)
    expected = [(1 + half) / 2, (1 + half) / 2, half, half / 2, -half / 2]
    for block in (1024, 2):
        monkeypatch.setattr("align.data.making.diagnosis.BLOCK", block)
        found, similarity = nearest(vectors)
        assert found[:3].tolist() == [[1, 2], [0, 2], [0, 1]]
        assert found[3].tolist() == [2, 0]
        assert np.allclose(similarity, expected)
    found, similarity = nearest(vectors[:1])
    assert found.shape == (1, 0)
    assert np.isnan(similarity).all()
    with pytest.raises(ValueError, match="vectors: must be finite and not zero"):
        nearest(np.zeros((2, 2)))


def test_a_rating_is_the_first_number_of_a_reply():
    assert [read_rating(text) for text in ("7.5/10", "none", "Out of 10: 6", "12")] == [7.5, None, 10.0, 10.0]


ROWS = [
    {"prompt": "say {answer} \n", "completion": " one", "reward": 1},
    {
        "prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "name a colour"}],
        "completion": [{"role": "assistant", "content": "red"}],
    },
    {"prompt": "count", "completion": "two"},
]


def test_a_row_is_rated_by_six_questions_and_not_by_fewer():
    asked = []

    def rater(prompts):
        asked.extend(prompts)
        return [str(i % 11) if i < 11 else "what?" for i in range(len(prompts))]

    found = ratings(ROWS[:2], rater)
    assert found[0] == pytest.approx(2.5)
    assert np.isnan(found[1])
    assert len(set(asked)) == 12
    assert all("say {answer}" in text for text in asked[:6])  # a place within a text is none
    assert [" one" in text for text in asked[:6]] == [False, True] * 3
    assert "name a colour" in asked[6]
    assert "red" in asked[7]


def test_a_flagged_row_gets_a_new_instruction_and_an_answer_to_that():
    asked = []

    def writer(prompts):
        asked.append(list(prompts))
        return [f"new {len(asked)}.{i}" for i in range(len(prompts))]

    made = rewritten(ROWS, [["hard", "poor"], ["lonely"], []], [[1], [0, 2], []], writer)
    assert "simpler" in asked[0][0]
    assert all(text in asked[0][1] for text in ("name a colour", "say {answer}", "count"))
    system = {"role": "system", "content": "be kind"}
    assert asked[1] == ["new 1.0 \n", [system, {"role": "user", "content": "new 1.1"}]]
    assert made == Rewritten(
        [
            {"prompt": "new 1.0 \n", "completion": " new 2.0", "reward": 1},
            {"prompt": asked[1][1], "completion": [{"role": "assistant", "content": "new 2.1"}]},
            ROWS[2],
        ],
        [],
    )


@pytest.mark.parametrize("silent", [0, 1])
def test_a_row_stays_as_it_was_where_no_text_comes(silent):
    calls = []

    def writer(prompts):
        calls.append(1)
        return ["" if len(calls) == silent + 1 and i == 0 else "new" for i in range(len(prompts))]

    made = rewritten(ROWS, [["poor"], ["poor"], []], [[], [], []], writer)
    assert made.failed == [0]
    assert made.rows[0] == ROWS[0]
    assert made.rows[1]["completion"] == [{"role": "assistant", "content": "new"}]
