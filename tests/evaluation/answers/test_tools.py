"""Runs that call tools, evaluated: whole conversations for rewards, the policy's own tokens for lengths and divergences."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from launching import ENV
from tool_world import LEARNT, corpus

import align
import eval.measures.rewards as measures
from align.errors import RunError
from align.own_code import adds
from align.rewards.load import REWARDS, Known
from align.sampling.generate import Answer, Turns
from eval.__main__ import Wanted, report_on
from eval.answers.asking import sampled_texts
from eval.evaluate import evaluate
from eval.subjects import load_subject

RECIPE = """\
method: dynamic_grpo
model: {model_name_or_path: ./caller, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data: {train: {path: ./rows.jsonl}, eval: {held: {path: ./rows.jsonl}}}
environments: {search: {path: ./corpus.jsonl}}
rewards: {fewer_calls: {most: 4}, conciseness: null, correctness: null}
train:
  {output_dir: run, use_cpu: true, bf16: false, num_generations: 2, per_device_train_batch_size: 4, max_steps: 1, report_to: none,
   max_completion_length: 200, learning_rate: 1.0e-4, save_strategy: "no", gradient_checkpointing: false}
eval: {generate: {prompts: 8, max_new_tokens: 300, temperature: 0.5, batch_size: 4}}
"""
ANSWERS = {"lamp": "red", "frogs": "ponds", "bad": None, "both": "green"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, learnt_caller):
    """A folder with a finished run, of questions that differ by their answers alone."""
    home = tmp_path_factory.mktemp("tool-eval")
    shutil.copytree(learnt_caller, home / "caller")
    corpus(home)
    (home / "r.yaml").write_text(RECIPE)
    rows = [
        {"prompt": [{"role": "user", "content": question}], "answer": answer}
        for question in LEARNT
        for answer in (ANSWERS[question], "brown")
    ]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        align.run("r.yaml")
    return home


@pytest.fixture(scope="module")
def whole(home):
    """The report of the run, in `kept`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return reported(home, name="kept")


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


def reported(home, *overrides, name="report", **kw):
    shutil.rmtree(home / name, ignore_errors=True)
    return report_on(Wanted(["run"], None, overrides, [], home / name, False, None, {}, **kw))[0]


def test_a_run_is_measured_by_the_conversations_that_it_has(at_home):
    report = reported(at_home, "eval.generate.temperature=0")
    found = report.estimates
    assert found["calls/ref"].value == pytest.approx((1 + 0 + 1 + 2) / 4)
    assert found["failed_calls/ref"].value == pytest.approx(1 / 4)
    assert found["objectives/fewer_calls/ref"].value == pytest.approx(1 - 1 / 4)
    worth = [1.0, 0.0, 0.0, 0.0, np.nan, 0.0, 1.0, 0.0]
    assert found["objectives/SearchEnvironment/ref"].value == pytest.approx(np.nanmean(worth))
    assert found["objectives/SearchEnvironment/ref"].n == 7
    own = {question: sum(len(turn) + 1 for turn in turns) for question, turns in LEARNT.items()}
    assert found["length_tokens/ref"].value == pytest.approx(np.mean(list(own.values())))
    assert found["cut_off/ref"].value == 0.0
    assert report.details["objectives"]["left_out"] == {}
    (row, *_) = [json.loads(line) for line in (at_home / "report" / "responses.jsonl").read_text().splitlines()]
    assert row["measured"]["ref"]["calls"] == [1]
    page = (at_home / "report" / "report.html").read_text()
    assert "calls of tools" in page


def test_divergences_are_of_the_policys_own_tokens(at_home, whole, monkeypatch):
    """By hand: the sum of log-ratios over the tokens that the policy wrote, of answers to the first prompts."""
    subject = load_subject("run")
    kept = {}
    monkeypatch.setattr(
        "eval.evaluate.token_estimates",
        lambda subjects, answers, settings: kept.update(answers) or ({"run": {}}, {}),
    )
    monkeypatch.setattr("eval.evaluate.measure_answers", lambda *a, **kw: None)
    monkeypatch.setattr("eval.evaluate.write_items", lambda *a: None)
    evaluate(subject, out=at_home / "kept")
    for number in (0, 6):
        answer = kept["run"][number][0]
        both = []
        for use in (subject.policy, subject.reference):
            with use() as model, torch.inference_mode():
                ids = torch.tensor([answer.prompt_ids + answer.completion_ids])
                logits = model(input_ids=ids).logits[0, len(answer.prompt_ids) - 1 : -1] / 0.5
            logps = logits.log_softmax(-1).gather(1, ids[0, len(answer.prompt_ids) :, None])[:, 0]
            both.append(sum(float(p) for p, own in zip(logps, answer.own, strict=True) if own))
        assert answer.turns.calls > 0
        assert whole.measured["run"]["log_ratio"][number] == pytest.approx(both[0] - both[1], abs=1e-4)


def test_answers_are_kept_and_other_tools_ask_anew(at_home, whole, monkeypatch):
    answers = {path.name: path.read_bytes() for path in (at_home / "kept" / "answers").iterdir()}
    monkeypatch.setattr("align.sampling.turns._answered", None)
    again = evaluate(load_subject("run"), out=at_home / "kept")
    assert {key: again.estimates[key] for key in whole.estimates} == whole.estimates
    with pytest.raises(TypeError):  # it samples
        evaluate(load_subject("run", None, ("train.max_tool_calling_iterations=1",)), out=at_home / "kept")
    now = {path.name: path.read_bytes() for path in (at_home / "kept" / "answers").iterdir()}
    assert len(now) == len(answers) + 1
    assert {name: now[name] for name in answers} == answers


@pytest.mark.slow
def test_an_evaluation_that_was_killed_goes_on_to_the_same_report(at_home, whole):
    command = [sys.executable, "-m", "align", "eval", "run", "--out", "killed"]
    made = at_home / "killed" / "answers"
    process = subprocess.Popen(command, env=ENV, cwd=at_home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None:
        lines = sum(len(path.read_bytes().splitlines()) for path in made.glob("*.jsonl")) if made.is_dir() else 0
        if lines >= 6:  # the first batch and the beginning of a file
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in made.glob("*.jsonl")}
    done = subprocess.run(command, env=ENV, cwd=at_home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all((made / name).read_bytes().startswith(text[: text.rfind(b"\n")]) for name, text in before.items())
    report = json.loads((at_home / "killed" / "report.json").read_text())
    assert {key: each["value"] for key, each in report["estimates"].items()} == {
        key: each.value for key, each in whole.estimates.items()
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["environments.search.path=none.jsonl"], "run: environments.search: corpus none.jsonl: cannot be read"),
        (["eval.generate.revisions=1"], "eval.generate.revisions: answers that call tools are not revised"),
        (["eval.refusals={path: r.jsonl}"], "eval.refusals: its prompts are no rows that an environment begins with"),
        (["eval.reference_point={fewer_calls: 0.0, conciseness: 0.0, correctness: 0.0}"],
         "eval.reference_point: has no value for SearchEnvironment"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_weights_are_loaded(at_home, monkeypatch, overrides, said):
    monkeypatch.setattr("eval.__main__.load_subjects", None)
    with pytest.raises(RunError, match=said):
        reported(at_home, *overrides)


def test_runs_with_other_tools_are_not_held_against_each_other(at_home):
    one, other = load_subject("run"), load_subject("run", None, ("train.max_tool_calling_iterations=1",))
    other.name = "other"
    with pytest.raises(RunError, match="other: calls other tools than run"):
        evaluate(one, [other], compare=True)


def test_a_reward_that_reads_environments_is_left_out_by_name(monkeypatch):
    def peeks(completions, environments, **_):
        return [0.0 for _ in environments]

    monkeypatch.setitem(REWARDS, "peeks", Known(peeks, 0, 1))
    turns = Turns([{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}], [1], 0, 0, {})
    answers = {who: [[Answer([1], [2], "a", True, turns)]] * 2 for who in ("mine", "ref")}
    sampled = sampled_texts([{"prompt": turns.prompt}] * 2, answers)
    _, left_out = measures.objective_values(sampled, {"peeks": {}})
    assert left_out == {"peeks": "it reads the environments themselves, which are gone once an answer is written"}
    assert "peeks" not in adds("rewards")
