"""An OpenAI-compatible endpoint as the subject of an evaluation, served on loopback."""

import json

import pytest
import tiny
import yaml
from endpoint_server import Server, failing, says

from eval.__main__ import main

PROMPTS = [row["prompt"][0]["content"] for row in tiny.pairs().to_list()]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Whose reference is the tiny model, and whose data hold the prompts."""
    home = tmp_path_factory.mktemp("endpoint")
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tiny.pairs()))
    made = {
        "method": "dpo",
        "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
        "lora": {"r": 4, "target_modules": "all-linear"},
        "data": {"train": {"path": str(home / "pairs.jsonl")}, "eval": {"test": {"path": str(home / "pairs.jsonl")}}},
        "train": {"output_dir": "x", "use_cpu": True, "bf16": False},
        "eval": {"generate": {"prompts": 4, "max_new_tokens": 8}, "gold_reward": "positive_sentiment"},
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(made))
    return home / "recipe.yaml"


def asked(server, recipe, out, *words):
    host = server.url.removeprefix("http://").removesuffix("/v1")
    return main(
        [server.url, "--model", "org/some-4.1", "--recipe", str(recipe), "--allow", host, "-o", str(out), *words]
    )


def test_an_endpoint_is_held_against_the_reference(recipe, tmp_path):
    with Server(lambda text, _: says(f"a wonderful answer to {text}")) as server:
        assert asked(server, recipe, tmp_path) == 0
        assert sorted(server.texts()) == sorted(PROMPTS[:4])
        assert {body["model"] for *_, body in server.requests} == {"org/some-4.1"}
        assert {(body["temperature"], body["max_tokens"]) for *_, body in server.requests} == {(1.0, 8)}
        assert asked(server, recipe, tmp_path) == 0  # and nothing is asked again
        assert len(server.requests) == 4
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["name"] == "org_some-4.1"
    assert read["estimates"]["gold_reward/difference"]["n"] == 4
    assert "kl" not in read["estimates"]
    assert [one["model"] for one in read["settings"]["endpoints"].values()] == ["org/some-4.1"]
    rows = [json.loads(line) for line in (tmp_path / "responses.jsonl").read_text().splitlines()]
    assert all(row["policy"].startswith("a wonderful answer to") for row in rows)
    assert all(not row["ref"].startswith("a wonderful") for row in rows)


def test_a_file_may_be_the_reference(recipe, tmp_path):
    rows = [{"prompt": text, "response": "so so"} for text in ("one", "two", "three")]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Server(lambda *_: says("good")) as server:
        assert asked(server, recipe, tmp_path / "out", str(tmp_path / "old.jsonl")) == 0
        assert sorted(server.texts()) == ["one", "three", "two"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["reference"] == "old"


def test_what_is_not_answered_is_asked_again_alone(recipe, tmp_path, capsys):
    bad = {PROMPTS[2]}
    with Server(lambda text, _: failing(422) if text in bad else says("fine")) as server:
        assert asked(server, recipe, tmp_path) == 2
        assert "1 of 4 answers are missing (the first: prompt 3" in capsys.readouterr().err
        bad.clear()
        before = len(server.requests)
        assert asked(server, recipe, tmp_path) == 0
        assert server.texts()[before:] == [PROMPTS[2]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://127.0.0.1:9/v1", "--model", "m"], "if you agree, add --allow 127.0.0.1:9, or with a key --allow VARIABLE@"),
        (["http://127.0.0.1:9/v1", "--allow", "127.0.0.1:9"], "--model: needed once for each endpoint"),
        (["http://127.0.0.1:9/v1", "--model", "m", "--allow", "NO_SUCH_KEY@127.0.0.1:9"], "'NO_SUCH_KEY' is not set"),
        (["http://127.0.0.1:9/v1", "tiny-random", "--model", "m"], "tiny-random: no file of responses"),
        (["http://127.0.0.1:9/v1", "--model", "m", "--allow", "127.0.0.1:9", "ref.kind=cached"], "ref.kind=cached"),
    ],
)  # fmt: skip
def test_nothing_is_sent_where_something_is_wrong(recipe, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr("eval.answers.endpoint.endpoint_answers", lambda *_: pytest.fail("asked"))
    assert main([*words, "--recipe", str(recipe), "-o", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_tools_are_refused(recipe, tmp_path, capsys):
    rows = [{"prompt": [{"role": "user", "content": f"p{i}"}], "chosen": [{"role": "assistant", "content": "a"}],
             "rejected": [{"role": "assistant", "content": "b"}], "chat_template_kwargs": {"enable_thinking": False}}
            for i in range(3)]  # fmt: skip
    (tmp_path / "kw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Server(lambda *_: says("no")) as server:
        data = [f"data.train.path={tmp_path / 'kw.jsonl'}", f"data.eval.test.path={tmp_path / 'kw.jsonl'}"]
        assert asked(server, recipe, tmp_path / "out", *data) == 2
        assert not server.requests
    assert "prompt 1 has tools or arguments of a chat template" in capsys.readouterr().err
