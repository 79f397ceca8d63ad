"""Policies that call tools: what is learnt from, what rewards are given, strata by calls, environments that own rewards."""

import pytest
import torch
from objectives import Oracle
from tool_world import agent, call, corpus
from torch.testing import assert_close

from align.rewards import make_reward
from align.tools import TOOLS, make_environment, make_tool
from align.trainers.shared.trl_contract import generation_state

LAMP, RUSE, FROGS = call(query="lamp Ober"), call(query="lamp Ruse"), call(query="frogs")
CALLS = [0, 1, 1, 2, 0, 0, 1, 2]


def turns():
    """By row as many calls as `CALLS` has, and an answer that no other row gives."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    return [
        [call(query=f"{word} {place}") for place in ("Ober", "Ruse")[:count]] + [f"it is {word}"]
        for word, count in zip(words, CALLS, strict=True)
    ]


def length(completion_ids, **_):
    return [float(len(ids)) for ids in completion_ids]


def vowels(completions, **_):
    return [float(sum(letter in "aeiou" for letter in c[-1]["content"])) for c in completions]


def row_of(batch, number):
    """The row of a shuffled batch that completion `number` is in."""
    return batch["row"].tolist().index(number)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    search = make_tool("search", path=corpus(folder))
    seen = []

    def kept(completion_ids, completions, **_):
        seen.append((completion_ids, completions))
        return length(completion_ids)

    trainer, asked = agent(
        folder, rewards=[vowels, kept, make_reward("fewer_calls", most=4)], turns=turns(), tools=[search],
        estimator="stratified", estimator_options={"key": "tool_calls", "alpha": 0.7}, reward_weights=[0.5, 0.25, 0.25],
    )  # fmt: skip
    weigh, tables = trainer._weigh, []
    trainer._weigh = lambda batches: (tables.append(trainer._rewards.double()), weigh(batches))
    trainer.train()
    return trainer, asked, seen[0], tables[0]


def test_tools_are_called_and_answered_in_the_conversation(trained):
    trainer, asked, (_, completions), _ = trained
    assert [len(texts) for texts in asked] == [8, 5, 2]  # all rows, those that called, those that called again
    assert "search(query): Search a collection" in asked[0][0]
    assert asked[1][0].endswith("<|user|><tool_response>The lamp of Ober is red.</tool_response><|end|><|assistant|>")
    roles = [[message["role"] for message in c] for c in completions]
    assert roles[0] == ["assistant"]
    assert roles[3] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert completions[3][-1]["content"] == "it is four"
    (record,) = [r for r in trainer.state.log_history if "loss" in r]
    assert record["tools/call_frequency"] == pytest.approx(sum(CALLS) / 8)
    assert record["objectives/fewer_calls"] == pytest.approx(1 - sum(CALLS) / 32)


def test_what_tools_return_is_not_learnt_from_and_not_counted(trained):
    trainer, _, (ids, _), _ = trained
    (batch,) = trainer._buffered_inputs
    decode = trainer.processing_class.decode
    for number, script in enumerate(turns()):
        row = row_of(batch, number)
        there = batch["completion_mask"][row].bool()
        own = there & batch["tool_mask"][row].bool()
        written = "".join(f"{text}<|end|>" for text in script)
        assert decode(batch["completion_ids"][row][own]) == written
        assert decode(ids[number]) == written
        others = decode(batch["completion_ids"][row][there & ~own])
        assert others.count("<tool_response>") == CALLS[number]


def test_completions_are_compared_with_those_of_as_many_calls(trained):
    """By hand: z-scores among completions of a prompt with as many calls, and among all of the prompt, mixed."""
    trainer, _, _, table = trained
    assert trainer.columns.objectives == ["vowels", "kept", "fewer_calls"]
    rewards, expected = table[:, trainer.columns.columns], torch.zeros(8, 3).double()

    def z(values, one):
        if len(values) < 2:
            return 0.0
        return float((one - values.mean()) / (values.std() + 1e-4))

    for row in range(8):
        group = range(4) if row < 4 else range(4, 8)
        alike = [other for other in group if CALLS[other] == CALLS[row]]
        for k in range(3):
            column = rewards[:, k]
            expected[row, k] = 0.7 * z(column[alike], column[row]) + 0.3 * z(column[list(group)], column[row])
    total = expected @ torch.tensor([0.5, 0.25, 0.25]).double()
    assert_close(list(trainer._logs["advantages"]), total.tolist(), rtol=1e-4, atol=1e-5)
    assert "rewards/number_of_calls/mean" not in trainer.state.log_history[0]


def test_gradients_of_objectives_are_those_of_the_policys_own_tokens(tmp_path):
    """The oracle's losses, one an objective, weighted as the rule says, are what backward left."""
    search = make_tool("search", path=corpus(tmp_path))
    trainer, _ = agent(
        tmp_path, rewards=[vowels, length, make_reward("fewer_calls")], turns=turns(), tools=[search], weighting="upgrad",
        gradient_layers="all",
    )  # fmt: skip
    oracle = Oracle(trainer)
    trainer.add_callback(oracle)
    trainer.train()
    ((seen, gradients, weights),) = oracle.steps
    assert_close(seen, weights @ gradients[:3], rtol=1e-4, atol=1e-6)
    (batch,) = trainer._buffered_inputs
    loss, everything = (
        float(trainer._compute_loss(trainer.model, batch | {"tool_mask": mask}))
        for mask in (batch["tool_mask"], torch.ones_like(batch["tool_mask"]))
    )
    assert loss != pytest.approx(everything, abs=1e-6)


def test_what_fails_is_told_to_the_policy_and_counts_as_a_call(tmp_path, monkeypatch):
    def broken(query: str) -> str:
        """Fail.

        Args:
            query: Anything.
        """
        raise SystemExit(0)

    script = [[call("broken", query="a"), "sad"], [call("nobody", query="b"), "so sad"], *[["fine"]] * 6]
    monkeypatch.setitem(TOOLS, "broken", broken)
    seen = []
    trainer, asked = agent(
        tmp_path, rewards=[lambda completions, **_: (seen.append(completions), [0.0] * 8)[1]], turns=script,
        tools=[make_tool("broken")],
    )  # fmt: skip
    trainer.train()
    assert "it ended with 0" in asked[1][0]
    assert "Tool nobody not found." in asked[1][1]
    assert trainer.state.log_history[0]["tools/failure_frequency"] == 1.0
    assert make_reward("fewer_calls", most=2)(completions=seen[0])[:3] == [0.5, 0.5, 1.0]


class Counting:
    """A reward that is owned: how often the bell was rung, in rooms with a bell."""

    def __init__(self, has_bell=True):
        self.has_bell, self.rung = has_bell, None

    def reset(self, prompt, answer=None, **_):
        self.rung = 0
        return " There is a bell."

    def ring(self, times: int) -> str:
        """Ring the bell.

        Args:
            times: How often.
        """
        self.rung += times
        return f"rung {self.rung}"

    def get_reward(self):
        return float(self.rung) if self.has_bell else None


def test_each_example_has_its_environment_whose_reward_is_one_more_objective(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": "ring"}], "answer": "x", "environment": "room"},
        {"prompt": [{"role": "user", "content": "where do frogs live"}], "answer": "ponds", "environment": "library"},
    ]
    ring = [[call("ring", times=n), f"rang {n}"] for n in (1, 2)] + [["no"], ["not"]]
    look = [[FROGS, "found"], [LAMP, "not found"], [call("ring", times=3), "no bell"], ["nothing"]]
    trainer, asked = agent(
        tmp_path, rewards=None, turns=ring + look, rows=rows, num_generations=4, reward_weights=[1.0, 3.0],
        environments={"room": Counting, "library": make_environment("search", path=corpus(tmp_path))},
    )  # fmt: skip
    tables, weigh = [], trainer._weigh
    trainer._weigh = lambda batches: (tables.append(trainer._rewards.clone()), weigh(batches))
    trainer.train()
    assert trainer.columns.objectives == ["Counting", "SearchEnvironment"]
    assert "ring(times)" in asked[0][0]
    assert "search(query)" not in asked[0][0]
    assert "ring There is a bell." in asked[0][0]
    assert "ring(times)" not in asked[0][4]
    assert "Tool ring not found." in asked[1][-1]
    nan = torch.nan
    expected = torch.tensor([[1, nan], [2, nan], [0, nan], [0, nan], [nan, 1], [nan, 0], [nan, 0], [nan, 0]])
    assert_close(tables[0], expected, equal_nan=True)
    scaled = [(column - column.mean()) / (column.std() + 1e-4) for column in (expected[:4, 0], expected[4:, 1])]
    assert_close(
        list(trainer._logs["advantages"]), [*scaled[0].tolist(), *(3 * scaled[1]).tolist()], rtol=1e-4, atol=1e-5
    )


def test_a_reward_that_an_environment_owns_does_not_apply_to_a_row_without_an_answer(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": f"q{n}"}], "answer": a} for n, a in enumerate(["red", None])]
    script = [[LAMP, "a"], [FROGS, "b"], ["c"], ["d"]] * 2
    trainer, _ = agent(
        tmp_path, rewards=[length], turns=script, rows=rows,
        environments=make_environment("search", path=corpus(tmp_path)),
    )  # fmt: skip
    tables, weigh = [], trainer._weigh
    trainer._weigh = lambda batches: (tables.append(trainer._rewards.clone()), weigh(batches))
    trainer.train()
    assert tables[0][:4, 1].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert tables[0][4:, 1].isnan().all()
    record = trainer.state.log_history[0]
    assert record["objectives/SearchEnvironment"] == pytest.approx(0.25)
    assert record["weights/SearchEnvironment"] == pytest.approx(0.5)


def test_an_evaluation_calls_tools_too(tmp_path):
    search = make_tool("search", path=corpus(tmp_path))
    trainer, _ = agent(
        tmp_path, rewards=[make_reward("fewer_calls", most=4), vowels], turns=turns(), tools=[search],
        per_device_eval_batch_size=8,
    )  # fmt: skip
    measured = trainer.evaluate(trainer.train_dataset)
    assert measured["eval_rewards/fewer_calls/mean"] == pytest.approx(1 - sum(CALLS) / 32)
    assert measured["eval_tools/call_frequency"] == pytest.approx(sum(CALLS) / 8)


def test_a_checkpoint_holds_which_tokens_are_tools(tmp_path):
    search = make_tool("search", path=corpus(tmp_path))
    trainer, _ = agent(tmp_path, rewards=[vowels], turns=turns(), tools=[search])
    trainer.train()
    (batch,) = generation_state(trainer)["buffered"]
    assert int((batch["tool_mask"] == 0).sum()) > 100
