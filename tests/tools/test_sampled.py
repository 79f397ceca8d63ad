"""Files of answers that call tools, scored by their conversations; fronts of usefulness against calls; what chat refuses."""

import json
import shutil
from pathlib import Path

import pytest
from tool_world import LEARNT, corpus

from align import train
from align.commands.chat import main as chat
from align.commands.sample import main as sample
from align.commands.score import main as score
from align.errors import RunError
from align.fronts.run import run_front
from align.recipe.loading import load_recipe
from align.rewards.load import CALLS, REWARDS, Known
from align.rewards.texts import found_by, stands_in
from eval.report.front import write_front

RECIPE = """\
method: dynamic_grpo
model: {model_name_or_path: ./caller, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data: {train: {path: ./rows.jsonl}, eval: {held: {path: ./rows.jsonl}}}
tools: {search: {path: ./corpus.jsonl}}
rewards: {found: null, fewer_calls: {most: 4}}
fronts: {kind: soups, sweep: 3}
train:
  {output_dir: front, use_cpu: true, bf16: false, num_generations: 2, per_device_train_batch_size: 4, max_steps: 1, report_to: none,
   max_completion_length: 200, learning_rate: 1.0e-4, save_strategy: "no", gradient_checkpointing: false}
eval: {generate: {prompts: 4, max_new_tokens: 300, temperature: 0.0, batch_size: 8}}
"""
ANSWERS = {"lamp": "red", "frogs": "ponds", "bad": "x", "both": "green"}


def found(completions, answer, **_):
    return [float(stands_in(a, "\n".join(found_by(c)))) for c, a in zip(completions, answer, strict=True)]


@pytest.fixture
def home(tmp_path, learnt_caller, monkeypatch):
    shutil.copytree(learnt_caller, tmp_path / "caller")
    corpus(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    rows = [{"prompt": [{"role": "user", "content": q}], "answer": ANSWERS[q]} for q in LEARNT]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(REWARDS, "found", Known(found, 0, 1, (CALLS, "answer")))
    return tmp_path


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


GREEDY = ["--prompts", "rows.jsonl", "--temperature", "0", "--max-new-tokens", "300"]


def test_a_file_of_answers_has_their_conversations_which_rewards_are_given(home):
    assert sample(["r.yaml", "fronts=null", *GREEDY, "--out", "a.jsonl"]) == 0
    rows = lines("a.jsonl")
    assert [row["tool_calls"] for row in rows] == [[1], [0], [1], [2]]
    assert [m["role"] for m in json.loads(rows[0]["conversations"][0])] == ["assistant", "tool", "assistant"]
    assert rows[1]["completions"] == ["in ponds"]
    assert score(["a.jsonl", "--by", "found", "--by", "fewer_calls={most: 4}", "--out", "s.jsonl"]) == 0
    assert [row["rewards"] for row in lines("s.jsonl")] == [
        [{"found": 1.0, "fewer_calls": 0.75}], [{"found": 0.0, "fewer_calls": 1.0}], [{"found": 0.0, "fewer_calls": 0.75}],
        [{"found": 1.0, "fewer_calls": 0.5}],
    ]  # fmt: skip
    bare = [{name: row[name] for name in ("prompt", "answer", "completions")} for row in rows]
    (home / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    with pytest.raises(
        RunError, match="--by fewer_calls: reads calls of tools, and these answers have no `conversations`"
    ):
        score(["bare.jsonl", "--by", "fewer_calls", "--out", "t.jsonl"])


def test_what_cannot_be_asked_is_refused_before_weights_are_loaded(home, monkeypatch):
    monkeypatch.setattr("align.sampling.policy.load_model", None)
    with pytest.raises(RunError, match="r.yaml: calls tools, which nobody answers in a chat"):
        chat(["r.yaml", "fronts=null"])
    asked = ["r.yaml", "fronts=null", *GREEDY, "--out", "x.jsonl"]
    with pytest.raises(RunError, match="--revisions: answers that call tools are not sampled so"):
        sample([*asked, "--revisions", "1"])
    with pytest.raises(RunError, match=r"corpus none.jsonl: cannot be read"):
        sample([*asked, "tools.search.path=none.jsonl"])
    (home / "rows.jsonl").write_text('{"prompt": "lamp", "answer": "red"}\n')
    with pytest.raises(RunError, match="the prompts are plain text, and calls of tools are messages of a chat"):
        sample(asked)


def test_a_front_of_what_searches_find_against_what_they_cost(home):
    (home / "front").mkdir()
    run = run_front(load_recipe("r.yaml"), train.run, resume=False)
    told = write_front(run)
    assert told["objectives"] == ["found", "fewer_calls"]
    assert told["ref"] == {"found": 0.5, "fewer_calls": 0.75}  # what it was taught
    for name in ("ref", "first-1", "first-2", "soup-00"):
        rows = lines(run / "policies" / name / "scores.jsonl")
        for row in rows:
            assert row["rewards"][0]["fewer_calls"] == pytest.approx(1 - row["tool_calls"][0] / 4)
    assert sum(row["tool_calls"][0] for row in lines(run / "policies" / "soup-00" / "answers.jsonl")) > 0
    before = (run / "policies" / "first-1" / "answers.jsonl").read_bytes()
    again = run_front(load_recipe("r.yaml"), None, resume=True)  # type: ignore[arg-type]
    assert (again / "policies" / "first-1" / "answers.jsonl").read_bytes() == before
