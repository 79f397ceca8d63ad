"""What a reply says: a letter alone, one after reasons, or the probabilities of letters; and the recipe's own question."""

import math

import pytest
from endpoint_server import Reply, Server, endpoint, questions, records, says

from align.judges.endpoint_judge import EndpointJudge
from align.judges.from_recipe import prepare_judges
from align.judges.protocol import TEMPLATE, Question
from align.judges.replies import Reading, Token
from align.recipe.loading import EvalConfig, load_recipe
from align.recipe.sections import JudgeConfig

OWN = "Which is funnier?\n{prompt}\n1: {a}\n2: {b}\nA or B"


def weighed(parts, place, likely):
    """A reply of tokens, of which one has likely others."""
    tokens = [Token(text, likely if index == place else {text: 0.0}) for index, text in enumerate(parts)]
    return "".join(parts), tokens


def as_reply(parts, place, likely):
    text, tokens = weighed(parts, place, {key: math.log(value) for key, value in likely.items()})
    content = [
        {"token": one.text, "top_logprobs": [{"token": key, "logprob": value} for key, value in one.likely.items()]}
        for one in tokens
    ]
    return Reply(body={"choices": [{"message": {"content": text}, "logprobs": {"content": content}}]})


@pytest.mark.parametrize(
    ("said", "first_wins"),
    [("A", 1), ("b", 0), (" **B**. ", 0), ("[[A]]", 1), ("Tie", 0.5), ("Answer B", 0), ("Answer: A", 1), ("AB", None),
     ("", None), ("A because it is longer", None), ("neither", None)],
)  # fmt: skip
def test_only_a_verdict_is_a_verdict(said, first_wins):
    if first_wins is None:
        with pytest.raises(ValueError, match="neither A, B nor tie"):
            Reading()(said)
    else:
        assert Reading()(said)[1] == first_wins


@pytest.mark.parametrize(
    ("said", "first_wins"),
    [("A is short. [[A]]", 1), ("[[A]] would be rash.\n\n[[B]]", 0), ("both err: [[ c ]].", 0.5), ("[[tie]]", 0.5),
     ("so A", None), ("[[A", None), ("", None)],
)  # fmt: skip
def test_after_reasons_the_last_bracketed_letter_counts(said, first_wins):
    if first_wins is None:
        with pytest.raises(ValueError, match=r"no \[\[A\]\]"):
            Reading(reasoning=True)(said)
    else:
        assert Reading(reasoning=True)(said) == (said.strip(), first_wins)


def test_a_verdict_counts_by_the_probabilities_of_its_letters():
    logs = {"A": math.log(0.6), " B": math.log(0.2), "b": math.log(0.1), "The": math.log(0.05)}
    assert Reading(logprobs=True)(*weighed([" ", "A", "\n"], 1, logs))[1] == pytest.approx(0.6 / 0.9)
    tie = logs | {"tie": math.log(0.1)}
    assert Reading(logprobs=True)(*weighed(["A"], 0, tie))[1] == pytest.approx((0.6 + 0.05) / 1.0)
    reasoned = Reading(reasoning=True, logprobs=True)
    text = ["A is", " good, [[A]]? No: ", "[[", "B", "]]"]
    assert reasoned(*weighed(text, 3, logs))[1] == pytest.approx(0.6 / 0.9)
    joined = {"[[A": math.log(0.3), "[[B": math.log(0.5), "[[C": math.log(0.2)}
    assert reasoned(*weighed(["so ", "[[B", "]]"], 1, joined))[1] == pytest.approx(0.3 + 0.1)
    with pytest.raises(ValueError, match="not those of the reply"):
        Reading(logprobs=True)("A", [Token("B", logs)])
    with pytest.raises(ValueError, match="no log-probability of A, B or tie"):
        Reading(logprobs=True)(*weighed(["A"], 0, {"x": 0.0}))


def test_what_ends_a_reply_or_is_no_letter_of_it_counts_for_nothing():
    logs = {"A": math.log(0.6), "B": math.log(0.2), "C": math.log(0.1)}
    reading = Reading(logprobs=True)
    assert reading("A", [Token("A", logs), Token("<|im_end|>", {})])[1] == pytest.approx(0.75)
    text, tokens = weighed(["[[", "A", "]]"], 1, logs)
    assert Reading(reasoning=True, logprobs=True)(text, tokens)[1] == pytest.approx(0.65 / 0.9)


def test_numbers_that_are_no_log_probabilities_count_for_nothing(tmp_path):
    odd = [{"token": "A", "logprob": "nan"}, {"token": "B", "logprob": 1000}, {"token": "a", "logprob": None}]
    replies = [odd, [*odd, {"token": "A", "logprob": -0.5}, {"token": "b", "logprob": float("-inf")}]]

    def answer(_, number):
        content = [{"token": "A", "top_logprobs": replies[min(number, 1)]}]
        return Reply(body={"choices": [{"message": {"content": "A"}, "logprobs": {"content": content}}]})

    with Server(answer) as server:
        judge = EndpointJudge(
            endpoint(server, attempts=1, concurrency=1), tmp_path / "v", reading=Reading(logprobs=True)
        )
        first, second = judge(questions(2))
    assert "no log-probability of A, B or tie" in first.error
    assert second.first_wins == 1
    assert len(records(tmp_path / "v")) == 2
    with pytest.raises(ValueError, match="first_wins must be in"):
        judge.ledger.append({"key": "x", "first_wins": float("nan"), "said": ""})
    assert len(records(tmp_path / "v")) == 2


def test_an_endpoint_gives_reasons_and_probabilities(tmp_path):
    reply = as_reply(["A rhymes. ", "[[", "A", "]]"], 2, {"A": 0.8, "B": 0.2})
    with Server(lambda *_: reply) as server:
        one = endpoint(server)
        (got,) = EndpointJudge(one, tmp_path / "v", reading=Reading(reasoning=True, logprobs=True))(questions(1))
        assert got.first_wins == pytest.approx(0.8)
        assert "[[C]] if neither is better" in server.texts()[0]
        assert (server.requests[0][3]["logprobs"], server.requests[0][3]["top_logprobs"]) == (True, 20)
        (sure,) = EndpointJudge(one, tmp_path / "v", reading=Reading(reasoning=True))(questions(1))
        assert sure.first_wins == 1
        assert "logprobs" not in server.requests[1][3]
        assert len(server.requests) == 2, "another reading is another question"
        EndpointJudge(one, tmp_path / "v", reading=Reading(reasoning=True))(questions(1))
        assert len(server.requests) == 2
    assert records(tmp_path / "v")[0]["said"] == "A rhymes. [[A]]"


def test_an_endpoint_without_probabilities_is_asked_once(tmp_path):
    with Server(lambda *_: says("A")) as server:
        judge = EndpointJudge(endpoint(server, concurrency=1), tmp_path / "v", reading=Reading(logprobs=True))
        got = judge(questions(3))
    assert len(server.requests) == 1
    assert all("leave out logprobs" in one.error for one in got)


def judges(server, **changed):
    made = {"kind": "endpoint", "url": server.url, "model": "m", "attempts": 1} | changed
    return EvalConfig(generate={"prompts": 2}, judges={"j": JudgeConfig(**made)})


def test_a_recipe_says_the_question_and_how_its_answer_is_read(tmp_path):
    model, said = load_recipe("dpo/tiny").model, as_reply(["[[", "B", "]]"], 1, {"A": 0.25, "B": 0.75})
    with Server(lambda *_: said) as server:
        host = server.url.removeprefix("http://").removesuffix("/v1")
        config = judges(server, template=OWN, reasoning=True, logprobs=True)
        judge = prepare_judges(config, model, allow=[host], ledgers=tmp_path)["j"]()
        (got,) = judge.ask([Question([{"role": "user", "content": "a pun"}], "x", "y")])
    assert got.first_wins == pytest.approx(0.25)
    assert server.texts() == ["Which is funnier?\na pun\n1: x\n2: y\nA or B"]
    assert server.requests[0][3]["max_tokens"] == 1024


def test_a_local_judge_is_asked_the_recipes_question():
    recipe = load_recipe("dpo/tiny")
    for template in (None, OWN):
        config = EvalConfig(
            generate={"prompts": 2},
            judges={"j": JudgeConfig(kind="language_model", path="tiny-random", template=template)},
        )
        judge = prepare_judges(config, recipe.model)["j"]()
        assert judge.ask.template == (template or TEMPLATE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"kind": "endpoint", "url": "http://h/v1", "model": "m", "template": "{a} {b}"}, r"must hold \{prompt\} exactly once"),
     ({"kind": "language_model", "path": "x", "template": "{prompt} {a} {a} {b}"}, r"must hold \{a\} exactly once"),
     ({"kind": "language_model", "path": "x", "reasoning": True}, "reasoning: not used by kind 'language_model'"),
     ({"kind": "reward", "reward": "clarity", "template": OWN}, "template: not used by kind 'reward'")],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JudgeConfig(**settings)
