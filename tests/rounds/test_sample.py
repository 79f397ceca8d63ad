"""Answers with their prompts in a file that every other command reads."""

import json

import pytest
from endpoint_server import Server, failing, says
from stored_world import read_lines
from trl import ModelConfig

from align.commands.sample import main as sample
from align.errors import DataError, RunError
from align.models.loading import load_model, load_tokenizer
from align.sampling import answer_file
from align.sampling.generate import Decoding, generate
from align.sampling.policy import policy_of
from align.train import run
from eval.answers.files import read_responses

QUICK = ["--max-new-tokens", "6", "--samples", "2"]


def test_rows_keep_their_columns_and_hold_the_answers_of_generate(prompts, tmp_path, sampled, capsys):
    out = tmp_path / "new" / "answers.jsonl"
    words = ["tiny-random", "--prompts", str(prompts), "--out", str(out), *QUICK, "--seed", "3"]
    assert sample(words) == 0
    assert "4 answers to 2 prompts" in capsys.readouterr().out
    settings = ModelConfig(model_name_or_path="tiny-random", dtype="auto")
    rows = read_lines(out)
    expected = generate(
        load_model(settings).eval(),
        load_tokenizer(settings),
        [row["prompt"] for row in rows],
        Decoding(6, seed=3),
        samples=2,
    )
    assert [row["completions"] for row in rows] == [[one.text for one in answers] for answers in expected]
    assert [row["finished"] for row in rows] == [[one.finished for one in answers] for answers in expected]
    assert [row["answer"] for row in rows] == ["4", "5"]
    assert sum(sampled) == 4
    with pytest.raises(DataError, match=r"answers\.jsonl: is there already"):
        sample(words)
    out.unlink()
    sample(words)  # what is kept is not sampled again
    assert sum(sampled) == 4
    assert read_lines(out) == rows
    assert (
        read_responses(out).texts[json.dumps("name a colour")] == rows[1]["completions"]
    )  # as `alignkit eval` reads it


def test_what_is_killed_goes_on(prompts, tmp_path, sampled, monkeypatch):
    out = tmp_path / "answers.jsonl"
    words = ["tiny-random", "--prompts", str(prompts), "--out", str(out), *QUICK, "--batch-size", "1"]
    monkeypatch.setattr(answer_file, "write_rows", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sample(words)
    assert not out.exists()
    monkeypatch.undo()
    sample(words)
    assert sum(sampled) == 4
    assert len(read_lines(out)) == 2


def test_a_run_its_reference_and_what_a_recipe_begins_with(tmp_path):
    run(
        "dpo/tiny",
        ["data.eval={}", "train.save_strategy='no'", "train.max_steps=1", f"train.output_dir={tmp_path / 'run'}"],
    )
    trained = policy_of(str(tmp_path / "run"))
    assert trained.adapter == str(tmp_path / "run" / "adapter")
    assert trained.settings.dtype == "float32"
    assert policy_of(str(tmp_path / "run"), reference=True).adapter is None
    assert policy_of(str(tmp_path / "run" / "adapter")).adapter == str(tmp_path / "run" / "adapter")
    words = ["lora=null", f"start={{adapter: {tmp_path / 'run'}}}"]
    assert policy_of("dpo/tiny", words).adapter == str(tmp_path / "run" / "adapter")
    assert policy_of("dpo/tiny", words, reference=True).adapter is None
    (tmp_path / "asked.jsonl").write_text('{"prompt": "say hello"}\n')
    for who, name in ((tmp_path / "run", "one"), ("tiny-random", "other")):  # what is kept of both lies in one folder
        how = ["--prompts", str(tmp_path / "asked.jsonl"), "--max-new-tokens", "2"]
        sample([str(who), *how, "--out", str(tmp_path / f"{name}.jsonl")])
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert policy_of("dpo/tiny", ["lora=null", f"ref={{kind: adapter, path: {tmp_path / 'run/adapter'}}}"]).adapter
    other = policy_of("dpo/tiny", ["ref={kind: model, path: elsewhere}"], reference=True)
    assert other.settings.model_name_or_path == "elsewhere"
    with pytest.raises(RunError, match="neither a run nor a recipe"):
        policy_of("tiny-random", reference=True)
    with pytest.raises(RunError, match="judges answers and writes none"):
        policy_of("preference_model/tiny")


def test_what_cannot_be_meant_is_refused(prompts, tmp_path):
    out = ["--prompts", str(prompts), "--out", str(tmp_path / "a.jsonl")]
    for words, said in [
        (["tiny-random", *out, "--samples", "0"], "--samples: must be at least 1, got 0"),
        (["tiny-random", *out, "--samples", "2", "--temperature", "0"], "--samples: must be 1 at temperature 0"),
        (["tiny-random", *out, "--max-new-tokens", "0"], "--max-new-tokens: must be at least 1, got 0"),
        (["tiny-random", *out, "--key-variable", "X"], "--key-variable: is an endpoint's"),
        (["tiny-random", *out, "train.seed=1"], "train.seed=1: tiny-random is neither a run nor a recipe"),
        (["dpo/tiny", *out, "eval.generate.temperature=1"], "eval.generate.temperature=1: says nothing of who answers"),
        (["dpo/tiny", *out, "data.as_messages=true"], "data.as_messages=true: says nothing of who answers"),
        (["http://127.0.0.1:1/v1", *out, "--model", "m", "--ref"], "--ref: does nothing for an endpoint"),
        (["http://127.0.0.1:1/v1", *out, "--model", "m"], "add --allow 127.0.0.1:1"),
    ]:
        with pytest.raises(RunError, match=said):
            sample(words)
    prompts.write_text('{"prompt": "a", "completions": ["b"]}\n{"prompt": " "}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the prompt is empty") as told:
        sample(["tiny-random", *out])
    assert str(told.value).startswith(f"prompts ({prompts}): 1 of 2 rows")
    assert "data." not in str(told.value)  # which are settings of recipes
    prompts.write_text('{"prompt": "a", "completions": ["b"]}\n', encoding="utf-8")
    with pytest.raises(RunError, match="a column 'completions' is there already"):
        sample(["tiny-random", *out])


def test_an_endpoint_answers_and_only_what_failed_is_asked_again(prompts, tmp_path, capsys):
    bad = {"name a colour"}
    with Server(lambda text, number: failing(422) if text in bad else says(f"{text}: {number}")) as server:
        host = server.url.removeprefix("http://").removesuffix("/v1")
        out = tmp_path / "answers.jsonl"
        words = [
            server.url,
            "--model",
            "m",
            "--allow",
            host,
            "--prompts",
            str(prompts),
            "--out",
            str(out),
            "--samples",
            "2",
        ]
        assert sample(words) == 0
        assert "2 answers to 1 prompts; 2 answers are missing (the first: prompt 2, sample 1" in capsys.readouterr().out
        bad.clear()
        out.unlink()
        asked = len(server.requests)
        assert sample(words) == 0
        assert server.texts()[asked:] == ["name a colour"] * 2
    assert [len(row["completions"]) for row in read_lines(out)] == [2, 2]
