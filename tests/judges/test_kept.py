"""What a local judge says is kept: nothing is asked twice, and never of another judge."""

import pytest
from endpoint_server import questions, records

from align.judges import kept
from align.judges.from_recipe import prepare_judges
from align.judges.kept import KeptJudge
from align.judges.protocol import Question, Verdict
from align.recipe.loading import EvalConfig, load_recipe
from align.recipe.sections import JudgeConfig


class Asked:
    """A judge that counts what it is asked, and knows nothing of prompt 1."""

    def __init__(self):
        self.batches = []

    def __call__(self, some):
        self.batches.append(list(some))
        return [Verdict(float("nan"), "", "no idea") if q.prompt == "prompt 1" else Verdict(0.75, "A") for q in some]


def test_what_was_said_is_not_asked_again_and_failures_are(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    ask = Asked()
    first = KeptJudge(ask, tmp_path / "j.jsonl", {"model": "one"})(questions(4) + questions(1))
    assert [len(batch) for batch in ask.batches] == [2, 2]
    assert [one.first_wins for one in first if one.error is None] == [0.75] * 4
    again = KeptJudge(ask, tmp_path / "j.jsonl", {"model": "one"})(questions(4) + questions(1))
    assert [q.prompt for q in ask.batches[2]] == ["prompt 1"]
    assert [(one.said, one.error) for one in again] == [(one.said, one.error) for one in first]
    assert len(records(tmp_path / "j.jsonl")) == 3


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_what_was_said_before_a_stop_stays(tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(kept, "AT_ONCE", 2)
    ask = Asked()

    def stops(some):
        if ask.batches:
            raise stopped
        return ask(some)

    with pytest.raises(stopped):
        KeptJudge(stops, tmp_path / "j.jsonl", {})([*questions(1), *questions(6)[2:]])
    assert len(records(tmp_path / "j.jsonl")) == 2


def test_another_judge_or_order_is_another_question(tmp_path):
    ask, path = Asked(), tmp_path / "j.jsonl"
    KeptJudge(ask, path, {"model": "one"})([Question("p", "x", "y")])
    KeptJudge(ask, path, {"model": "two"})([Question("p", "x", "y")])
    KeptJudge(ask, path, {"model": "one"})([Question("p", "y", "x")])
    assert len(ask.batches) == 3


def test_a_language_model_of_a_recipe_is_asked_once(tmp_path, monkeypatch):
    def judge(**changed):
        said = {"kind": "language_model", "path": "tiny-random"} | changed
        config = EvalConfig(generate={"prompts": 2}, judges={"j": JudgeConfig(**said)})
        return prepare_judges(config, load_recipe("dpo/tiny").model, ledgers=tmp_path)["j"]()

    first = judge().judge(["p", "q"], [["a", "b"], ["c", "d"]])
    assert len(records(tmp_path / "j.jsonl")) == 4
    other = judge(template="{prompt}: {a} or {b}, A or B")
    second = judge()
    monkeypatch.setattr(second.ask, "ask", None)
    again = second.judge(["p", "q"], [["a", "b"], ["c", "d"]])
    assert (again.orders[0, 0, 1], again.said) == (first.orders[0, 0, 1], first.said)
    other.judge(["p"], [["a", "b"]])
    assert len(records(tmp_path / "j.jsonl")) == 6
