"""Judges behind one protocol: both orders, raw verdicts, failures by item; rewards, and a local language model."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from align.judges.protocol import (
    TEMPLATE,
    Judge,
    JudgeError,
    LanguageModelJudge,
    Question,
    Verdict,
    judge_all,
    question_text,
)
from align.judges.scorers import RewardScorer, TableScorer, check_matrix
from align.models.tiny import tiny_model, tiny_tokenizer
from eval.statistics.win_rate import position_bias

CHAT = [{"role": "user", "content": "what is two plus two"}]


def likes_long_and_first(questions):
    """One half more for the first; fails where an answer is empty."""
    verdicts = []
    for question in questions:
        if not question.first or not question.second:
            verdicts.append(Verdict(np.nan, "", "an empty answer"))
            continue
        lean = 0.2 * (len(question.first) > len(question.second)) - 0.2 * (len(question.first) < len(question.second))
        verdicts.append(Verdict(0.6 + lean, f"{question.first}>{question.second}"))
    return verdicts


def test_every_pair_is_asked_in_both_orders_and_averaged():
    got = Judge(likes_long_and_first).judge(["p"], [["aaa", "b", "cc"]])
    assert_allclose(got.orders[0], [[np.nan, 0.8, 0.8], [0.4, np.nan, 0.4], [0.4, 0.8, np.nan]])
    assert_allclose(got.preferences[0], [[0.5, 0.7, 0.7], [0.3, 0.5, 0.3], [0.3, 0.7, 0.5]])
    assert got.said[0, 1, 2] == "b>cc"
    assert got.said[0, 2, 1] == "cc>b"
    assert len(got.said) == 6
    check_matrix(got.preferences[0], 3)


def test_a_judge_is_a_scorer():
    matrix = Judge(likes_long_and_first).prefer(CHAT, ["aaa", "b"], solution="not shown")
    check_matrix(matrix, 2)
    assert matrix[0, 1] == pytest.approx(0.7)


def test_a_failed_order_is_reported_by_item_and_leaves_no_preference(caplog):
    got = judge_all(Judge(likes_long_and_first), ["p", "q"], [["aaa", "b"], ["aaa", ""]])
    assert [(f.prompt, f.first, f.second, f.error) for f in got.failures] == [
        (1, 0, 1, "an empty answer"),
        (1, 1, 0, "an empty answer"),
    ]
    assert np.isnan(got.preferences[1, 0, 1])
    assert got.preferences[0, 0, 1] == pytest.approx(0.7)
    assert "2 of 4 judgements failed; the first: an empty answer" in caplog.text
    with pytest.raises(JudgeError, match="no verdict on answers 0 and 1: an empty answer"):
        Judge(likes_long_and_first).prefer("q", ["aaa", ""])


def test_rewards_and_tables_are_judges_without_a_position():
    def length(completions, **_):
        return [float(len(c)) for c in completions]

    got = judge_all(RewardScorer(length), ["p", "q"], [["aaa", "a"], ["a", "a"]])
    assert_allclose(got.orders[:, 0, 1], [1 / (1 + np.exp(-2)), 0.5])
    assert_allclose(got.preferences[:, 0, 1], got.orders[:, 0, 1])
    assert position_bias(got.orders).flips.value == 0
    cycle = TableScorer(["r", "p", "s"], [[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]])
    assert_allclose(judge_all(cycle, ["x"], [["p", "r", "s"]]).preferences[0, 0], [0.5, 1, 0])


def test_columns_reach_the_reward_of_their_prompt():
    def right(completions, solution, **_):
        return [float(c == s) for c, s in zip(completions, solution, strict=True)]

    rows = [{"solution": "4"}, {"solution": "5"}]
    got = judge_all(RewardScorer(right, temperature=0.0), ["p", "q"], [["4", "5"], ["4", "5"]], rows)
    assert_allclose(got.orders[:, 0, 1], [1, 0])


def test_a_reward_that_fails_on_one_prompt_fails_there_alone():
    def reward(completions, **_):
        return [float("nan") if c == "bad" else 1.0 for c in completions]

    got = judge_all(RewardScorer(reward), ["p", "q", "r"], [["a", "b"], ["a", "bad"], ["c", "d"]])
    assert {f.prompt for f in got.failures} == {1}
    assert len(got.failures) == 2
    assert "finite number" in got.failures[0].error
    assert np.isnan(got.preferences[1, 0, 1])
    assert not np.isnan(got.preferences[[0, 2]]).any()


def test_a_scorer_whose_matrix_is_none_fails_by_item():
    class Wrong:
        def prefer(self, prompt, answers, **columns):
            return np.full((2, 2), 0.9)

    got = judge_all(Wrong(), ["p"], [["a", "b"]])
    assert "M + M^T must be 1" in got.failures[0].error


@pytest.mark.parametrize(
    ("prompts", "answers"), [(["p"], [["a"]]), (["p", "q"], [["a", "b"]]), (["p", "q"], [["a", "b"], ["c", "d", "e"]])]
)
def test_prompts_need_the_same_number_of_answers(prompts, answers):
    for judge in (Judge(likes_long_and_first), TableScorer(["a"], [[0.5]])):
        with pytest.raises(ValueError, match=f"answers: as many for each of the {len(prompts)} prompts"):
            judge_all(judge, prompts, answers)


def test_the_template_is_filled_once_and_answers_cannot_add_places():
    text = question_text("{prompt}|{a}|{b}", Question("say {b}", "{prompt} {a} \\1", "{0} {a.__class__}"))
    assert text == "say {b}|{prompt} {a} \\1|{0} {a.__class__}"


def test_messages_become_text():
    assert question_text("{prompt}{a}{b}", Question(CHAT, "", "")) == "what is two plus two"
    two = [{"role": "system", "content": "be brief"}, *CHAT]
    assert question_text("{prompt}{a}{b}", Question(two, "", "")) == "system: be brief\n\nuser: what is two plus two"


@pytest.mark.parametrize("template", ["{a}{b}", "{prompt}{a}", "{prompt}{a}{b}{b}"])
def test_a_template_has_every_place_once(template):
    with pytest.raises(ValueError, match=r"template: must hold \{\w+\} exactly once"):
        LanguageModelJudge(tiny_model(tiny_tokenizer()), tiny_tokenizer(), template=template)


SHORT = "{prompt} A:{a} B:{b} ?"
QUESTIONS = [
    Question("x", "yes", "no, never"),
    Question("a longer prompt", "1", "2"),
    Question("x", "no, never", "yes"),
]


def by_hand(model, tokenizer, question, letters):
    """Probability of the first letter among the two, from one forward pass without padding."""
    text = question_text(SHORT, question)
    if tokenizer.chat_template:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
    logits = model(torch.tensor([ids])).logits[0, -1].double()
    first, second = (tokenizer.convert_tokens_to_ids(letter) for letter in letters)
    return torch.sigmoid(logits[first] - logits[second]).item()


def test_the_language_model_judge_compares_the_probabilities_of_its_letters():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    with torch.no_grad():
        got = LanguageModelJudge(model, tokenizer, template=SHORT, batch_size=2)(QUESTIONS)
        expected = [by_hand(model, tokenizer, q, ("A", "B")) for q in QUESTIONS]
    assert_allclose([v.first_wins for v in got], expected, atol=1e-5)
    assert all(0.0 < v.first_wins < 1.0 and v.error is None for v in got)
    share = float(got[0].said.rpartition(" ")[2])
    assert 0 < share < 0.1
    assert got[0].said.startswith(f"A {got[0].first_wins:.6g}, share on A and B ")


def test_without_a_chat_template_the_question_is_plain_text():
    """The letters then follow a space: in bytes two tokens, of which the first is the same for both."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    model = tiny_model(tokenizer)
    judge = LanguageModelJudge(model, tokenizer, template=SHORT)
    (got,) = judge(QUESTIONS[:1])
    ids = tokenizer(question_text(SHORT, QUESTIONS[0]) + " ")["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    first, second = (tokenizer.convert_tokens_to_ids(letter) for letter in "AB")
    assert got.first_wins == pytest.approx(torch.sigmoid(logits[first] - logits[second]).item(), abs=1e-5)


def test_both_orders_of_a_language_model_make_a_matrix():
    tokenizer = tiny_tokenizer()
    judge = Judge(LanguageModelJudge(tiny_model(tokenizer), tokenizer, template=SHORT))
    got = judge_all(judge, ["x"], [["yes", "no, never", "perhaps"]])
    check_matrix(got.preferences[0], 3)
    assert not np.isnan(got.orders[0][~np.eye(3, dtype=bool)]).any()
    assert got.orders[0, 0, 1] != pytest.approx(1 - got.orders[0, 1, 0])  # a random model has a position


def test_a_question_beyond_the_context_fails_alone():
    tokenizer = tiny_tokenizer()
    judge = LanguageModelJudge(tiny_model(tokenizer), tokenizer, template=SHORT)
    long = Question("x" * 600, "a", "b")
    got = judge([QUESTIONS[0], long, QUESTIONS[2]])
    assert got[1].error is not None
    assert "tokens, the judge's context allows 511" in got[1].error
    assert np.isnan(got[1].first_wins)
    assert [got[0].first_wins, got[2].first_wins] == [v.first_wins for v in judge([QUESTIONS[0], QUESTIONS[2]])]


def test_a_model_without_numbers_gives_no_verdict():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    (got,) = LanguageModelJudge(model, tokenizer, template=SHORT)(QUESTIONS[:1])
    assert got.error == "the model gives no finite probability to A and B"


def test_the_usual_template_asks_for_a_letter():
    text = question_text(TEMPLATE, Question(CHAT, "four", "five"))
    assert text.index("two plus two") < text.index("four") < text.index("five")
    assert json.dumps(text).count("A or B") == 1
