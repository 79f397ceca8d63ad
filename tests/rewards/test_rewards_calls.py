"""Rewards of policies that call tools: what calls cost, and what a frozen model makes of their results."""

import pytest

from align.errors import RunError
from align.rewards import FrozenAnswerer, make_reward
from align.rewards.calls import shown
from align.rewards.texts import calls_of, found_by, stands_in

CALL = {"type": "function", "function": {"name": "search", "arguments": {"query": "x"}}}
ASKED = [{"role": "user", "content": "which colour"}]


def rollout(*results):
    """One turn for each result, and an answer."""
    found = []
    for text in results:
        found += [
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": "search", "content": text},
        ]
    return [*found, {"role": "assistant", "content": "red"}]


def test_calls_are_counted_not_turns():
    both = [{"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}]
    assert [calls_of(one) for one in (rollout(), rollout("a"), rollout("a", "b"), both, "text")] == [0, 1, 2, 2, 0]
    assert found_by(rollout("a", "b")) == ["a", "b"]
    assert found_by("text") == []


def test_fewer_calls_falls_to_0_in_a_straight_line():
    """The cost of AI-SearchPlanner, max(0, 1 - turns / most), at most 4 turns."""
    rollouts = [rollout(*"abcdefg"[:n]) for n in range(7)]
    assert make_reward("fewer_calls")(completions=rollouts) == [1, 0.75, 0.5, 0.25, 0, 0, 0]
    with pytest.raises(RunError, match="most: must be at least 1, got 0"):
        make_reward("fewer_calls", most=0)


def test_words_stand_in_a_text_whole_and_in_order():
    assert stands_in("Mara Veld", "It was (mara veld).")
    assert not stands_in("Mara Veld", "Veld Mara, Mara the Velden")
    assert not stands_in("18", "1874")
    assert not stands_in("?!", "?!")


@pytest.fixture
def answerer(monkeypatch):
    """One that says the last line before the question."""
    asked = []

    def answers(self, questions):
        asked.append(list(questions))
        return [question.split("\n")[-3] if question.count("\n") > 1 else "nobody knows" for question in questions]

    monkeypatch.setattr(FrozenAnswerer, "_answers", answers)
    return FrozenAnswerer("tiny-random"), asked


def test_the_answerer_is_shown_results_and_the_question_and_not_the_planners_words(answerer):
    reward, asked = answerer
    completions = [
        rollout("It is red."),
        rollout("red", "It is blue."),
        rollout(),
        rollout("x", "x"),
        rollout("It is red."),
    ]
    got = reward(completions=completions, prompts=[ASKED] * 5, answer=["red", "red", "red", None, "blue"])
    assert got == [1.0, 0.0, 0.0, None, 0.0]
    first = shown("which colour", ["It is red."])
    assert first == "It is red.\nQuestion: which colour\nAnswer in a few words."
    assert asked == [[first, shown("which colour", ["red", "It is blue."]), shown("which colour", [])]]  # each once
    assert shown("q", ["a", "b", "a"]).startswith("a\nb\nQuestion")


def test_a_real_answerer_gives_its_likeliest_answers():
    """Whatever a random model says; and the same with others beside it."""
    reward = FrozenAnswerer("tiny-random", max_new_tokens=4, dtype="float32")
    both = reward._answers([shown("which colour", ["It is red."]), shown("a much longer question than that", [])])
    assert both == [*reward._answers([shown("which colour", ["It is red."])]), both[1]]
    assert reward(completions=[rollout("x")], prompts=[ASKED], answer=[both[0] or "x"])[0] in (0.0, 1.0)
    assert reward(completions=[rollout("x")], prompts=[ASKED], answer=[None]) == [None]
    with pytest.raises(ValueError, match="frozen_answerer: needs `answer`, which it was not given"):
        reward(completions=[rollout()], prompts=[ASKED])
