"""Answers that call tools: those of training's own rollout, whatever else is asked, kept with all that came of them."""

import json
import shutil

import pytest
from datasets import Dataset
from tool_world import LEARNT, PASSAGES, corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.configs.online import DynamicGRPOConfig
from align.errors import RunError
from align.recipe.loading import load_recipe
from align.sampling.generate import Decoding, generate, sampled_ids
from align.sampling.store import AnswersError, stored_answers
from align.sampling.turns import calling_engine
from align.tools import ENVIRONMENTS, TOOLS, called_by, calling_of
from align.trainers.online.multi_objective import DynamicGRPOTrainer

RECIPE = """\
method: dynamic_grpo
model: {model_name_or_path: ./caller, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data: {train: {path: ./rows.jsonl}}
tools: {search: {path: ./corpus.jsonl}}
rewards: [fewer_calls]
train: {output_dir: runs/x, use_cpu: true, bf16: false, num_generations: 2, per_device_train_batch_size: 8, max_steps: 1}
"""
SEARCHES = ["tools=null", "environments={search: {path: ./corpus.jsonl}}"]
ROWS = [
    {"prompt": [{"role": "user", "content": question}], "answer": answer}
    for question, answer in zip(LEARNT, ["red", "ponds", None, "green"], strict=True)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory, learnt_caller):
    home = tmp_path_factory.mktemp("turns")
    shutil.copytree(learnt_caller, home / "caller")
    corpus(home)
    (home / "r.yaml").write_text(RECIPE)
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return home


@pytest.fixture
def world(home, monkeypatch):
    """`ask(*overrides)` gives answers to ROWS; `tokenizer` and `model` are the caller's."""
    monkeypatch.chdir(home)
    tokenizer = AutoTokenizer.from_pretrained("caller")
    model = AutoModelForCausalLM.from_pretrained("caller").eval()

    def ask(*overrides, tokens=300, temperature=0.0, batch_size=8, rows=ROWS, samples=1, path=None, seed=0):
        calling = calling_of(load_recipe("r.yaml", overrides), tokenizer, rows[0])
        prompts, decoding = [calling.prompt(row) for row in rows], Decoding(tokens, temperature, seed)
        engine = calling_engine(calling, model, tokenizer, prompts, decoding, batch_size=batch_size, desc="answers")
        asked = (model, tokenizer, prompts, decoding)
        if path is not None:
            return stored_answers(path, *asked, samples=samples, engine=engine)
        return generate(*asked, samples=samples, engine=engine)

    return type("World", (), {"ask": staticmethod(ask), "tokenizer": tokenizer, "model": model})


def said(answer):
    return [message["content"] for message in answer.turns.messages]


def test_tools_are_called_and_their_results_read(world):
    (lamp,), (frogs,), (bad,), (both,) = world.ask()
    assert [m["role"] for m in lamp.turns.messages] == ["assistant", "tool", "assistant"]
    assert lamp.turns.messages[0]["tool_calls"][0]["function"] == {"name": "search", "arguments": {"query": "Ober"}}
    assert said(lamp)[1:] == [PASSAGES[0], "red"]
    assert said(frogs) == ["in ponds"]
    assert said(both)[1:] == [PASSAGES[2], "", PASSAGES[1], "two"]
    assert [(a.turns.calls, a.turns.failed) for a in (lamp, frogs, bad, both)] == [(1, 0), (0, 0), (1, 1), (2, 0)]
    assert "Tool nope not found." in said(bad)[1]
    assert all(answer.finished for answer in (lamp, frogs, bad, both))
    assert lamp.text == "\nred"


def test_what_the_policy_wrote_is_told_from_what_tools_returned(world):
    ((lamp,), *_) = world.ask()
    own = world.tokenizer.decode(lamp.own_ids)
    assert own == "".join(f"{turn}<|end|>" for turn in LEARNT["lamp"])
    others = [token for token, mine in zip(lamp.completion_ids, lamp.own, strict=True) if not mine]
    assert world.tokenizer.decode(others) == (
        f"<|user|><tool_response>{PASSAGES[0]}</tool_response><|end|><|assistant|>"
    )


@pytest.mark.parametrize(
    ("overrides", "tokens"),
    [
        ([], 300),
        (["train.max_tool_calling_iterations=1"], 300),
        ([], 100),  # no room for a result
        ([], 145),  # and none for all that comes after one
        (SEARCHES, 300),
    ],
)
def test_greedy_answers_are_those_of_trainings_own_rollout(world, tmp_path, overrides, tokens):
    recipe = load_recipe("r.yaml", overrides)
    seen, loops = [], []

    def kept(completions, completion_ids, **_):
        seen.extend(zip(completions, completion_ids, strict=True))
        return [0.0] * len(completions)

    settings = {
        "output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 2, "use_cpu": True,
        "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "max_completion_length": tokens,
        "generation_kwargs": {"do_sample": False}, "shuffle_dataset": False, "learning_rate": 0.0,
        "max_tool_calling_iterations": recipe.train.max_tool_calling_iterations, "gradient_checkpointing": False,
    }  # fmt: skip
    trainer = DynamicGRPOTrainer(
        model=world.model, reward_funcs=[kept], args=DynamicGRPOConfig(**settings), processing_class=world.tokenizer,
        train_dataset=Dataset.from_list(ROWS), **called_by(recipe, world.tokenizer, ["prompt", "answer"]),
    )  # fmt: skip
    loop = trainer._tool_call_loop
    trainer._tool_call_loop = lambda *args, **kw: loops.append(loop(*args, **kw)) or loops[-1]
    trainer.train()
    answers = [answer for (answer,) in world.ask(*overrides, tokens=tokens)]
    ((own, _, ids, _, calls, failed, _),) = loops
    assert [answer.turns.messages for answer in answers for _ in range(2)] == json.loads(
        json.dumps([m for m, _ in seen])
    )
    assert [answer.own_ids for answer in answers for _ in range(2)] == [each for _, each in seen]
    assert [answer.completion_ids for answer in answers for _ in range(2)] == [list(each) for each in ids]
    assert [[int(one) for one in answer.own] for answer in answers for _ in range(2)] == [list(each) for each in own]
    assert 2 * sum(answer.turns.failed for answer in answers) == failed
    unanswered = sum(answer.turns.calls for answer in answers) - calls // 2
    assert unanswered == (1 if "train.max_tool_calling_iterations=1" in overrides else 0)


def test_an_answer_whose_last_call_is_not_answered_is_not_finished(world):
    (lamp,), _, _, (both,) = world.ask("train.max_tool_calling_iterations=1")
    assert (lamp.finished, both.finished) == (True, False)
    assert both.turns.calls == 2
    ((lamp,), *_) = world.ask(tokens=100)
    assert (lamp.finished, len(lamp.turns.messages), lamp.turns.failed) == (False, 1, 0)


def test_an_answer_does_not_depend_on_who_else_is_asked(world):
    together = world.ask(temperature=0.7, samples=3, seed=5)
    assert len({tuple(answer.completion_ids) for row in together for answer in row}) > 4
    assert world.ask(temperature=0.7, samples=3, seed=5, batch_size=2) == together
    assert world.ask(temperature=0.7, samples=3, seed=5, rows=ROWS[2:]) == together[2:]


def test_a_later_turn_has_the_room_that_is_left_and_noise_of_its_own_sample(world, monkeypatch):
    asked = []

    def seen(model, tokenizer, stops, rows, seeds, decoding):
        asked.append((decoding.max_new_tokens, len({tuple(row) for row in rows}), len(set(seeds))))
        return sampled_ids(model, tokenizer, stops, rows, seeds, decoding)

    monkeypatch.setattr("align.sampling.turns.sampled_ids", seen)
    ((first, second),) = world.ask(rows=ROWS[:1], samples=2, temperature=0.01)
    assert first.completion_ids == second.completion_ids
    read = len(first.own) - list(first.own)[::-1].index(False)  # tokens before the last turn
    assert asked == [(300, 1, 2), (300 - read, 1, 2)]


def test_kept_answers_are_read_with_all_that_came_of_them(world, tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    made = world.ask(*SEARCHES, path=path)
    assert made == world.ask(*SEARCHES)
    monkeypatch.setattr("align.sampling.turns._answered", None)
    assert world.ask(*SEARCHES, path=path) == made
    assert [answer.turns.rewards for (answer,) in made] == [
        {"SearchEnvironment": worth} for worth in (1.0, 0.0, None, 1.0)
    ]


class Bell:
    """Says when it begins what its row has, and is worth how often it was rung since."""

    made = 0

    def __init__(self):
        type(self).made += 1
        self.queries = []

    def reset(self, answer, **_):
        self.answer = answer
        return f" ({answer})" if answer else None

    def search(self, query: str) -> str:
        """Search a collection of short passages.

        Args:
            query: Words to look for.

        Returns:
            The passages that fit best.
        """
        self.queries.append(query)
        return PASSAGES[0]

    async def get_reward(self):
        return len(self.queries)


def test_each_answer_has_an_environment_of_its_own_and_hears_what_it_says(world, monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "bell", Bell)
    rows = [{"prompt": ROWS[0]["prompt"], "answer": answer} for answer in ("", "x")]
    (silent, again), (told, _) = world.ask("tools=null", "environments=[bell]", rows=rows, samples=2)
    assert silent.turns.rewards == again.turns.rewards == {"Bell": 1.0}
    assert [m["content"] for m in told.turns.prompt] == ["lamp (x)"]
    assert "lamp (x)<|end|>" in world.tokenizer.decode(told.prompt_ids)


def test_rows_that_environments_begin_with_are_part_of_the_question(world, tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [{"prompt": ROWS[0]["prompt"], "answer": answer} for answer in ("red", "blue")]
    worth = [answer.turns.rewards["SearchEnvironment"] for (answer,) in world.ask(*SEARCHES, rows=rows, path=path)]
    assert worth == [1.0, 0.0]
    assert len(path.read_text().splitlines()) == 3


def test_answers_with_other_tools_are_not_taken(world, home, tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    world.ask(path=path)
    for other in (["tools.search.passages=2"], ["train.max_tool_calling_iterations=3"]):
        with pytest.raises(AnswersError, match="made otherwise .*engine: "):
            world.ask(*other, path=path)

    def search(query: str) -> str:
        """Search a collection of short passages.

        Args:
            query: Words to look for.

        Returns:
            The passages that fit best.
        """
        return query

    before = (home / "corpus.jsonl").read_text()
    corpus(home, [*PASSAGES, "Another."])
    with pytest.raises(AnswersError, match="made otherwise .*engine: "):
        world.ask(path=path)
    (home / "corpus.jsonl").write_text(before)
    world.ask(path=path)
    monkeypatch.setitem(TOOLS, "search", search)
    with pytest.raises(AnswersError, match="made otherwise .*engine: "):
        world.ask("tools=[search]", path=path)


def test_a_row_that_no_environment_serves_is_named(world, monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "bell", Bell)
    both = ["tools=null", "environments={search: {path: ./corpus.jsonl}, bell: null}"]
    rows = [row | {"environment": "bel"} for row in ROWS]
    with pytest.raises(RunError, match="the environment 'bel', which is none of search, bell"):
        world.ask(*both, rows=rows)
    with pytest.raises(RunError, match="environment Bell: `reset` fails on a row: TypeError"):
        world.ask(*both, rows=[{"prompt": ROWS[0]["prompt"], "environment": "bell"}])


def test_what_tools_that_are_awaited_return_is_read(world, monkeypatch):
    async def search(query: str) -> str:
        """Search a collection of short passages.

        Args:
            query: Words to look for.

        Returns:
            The passages that fit best.
        """
        if query == "Ruse":
            raise ValueError("no Ruse")
        return PASSAGES[0]

    class Awaiting(Bell):
        pass

    Awaiting.search = _method(search)
    monkeypatch.setitem(ENVIRONMENTS, "awaiting", Awaiting)
    (lamp,), _, _, (both,) = world.ask(
        "tools=null", "environments=[awaiting]", rows=[row | {"answer": ""} for row in ROWS]
    )
    assert said(lamp)[1] == PASSAGES[0]
    assert (lamp.turns.failed, both.turns.failed) == (0, 1)
    assert "no Ruse" in said(both)[1]


def _method(function):
    async def search(self, query: str) -> str:
        return await function(query)

    search.__doc__ = function.__doc__
    return search
