"""The judges of a recipe: read strictly, asked only with permission, and never twice."""

import json

import pytest
import yaml
from endpoint_server import Server, failing, says
from reward_models import trained
from stored_world import make_world, responses

from align.cli import main as alignkit
from align.errors import RunError
from align.judges.from_recipe import permission, prepare_judges
from align.recipe.loading import RecipeError, load_recipe
from eval.__main__ import main

TEXTS = {"a": ["good"] * 4, "b": ["bad"] * 4, "c": ["good", "bad"] * 2}


def write_recipe(folder, judges, **further):
    recipe = {
        "method": "dpo",
        "model": {"model_name_or_path": "tiny-random"},
        "data": {"train": {"path": "no-such-file.jsonl"}},
        "train": {"output_dir": "unused", "use_cpu": True, "bf16": False},
        "eval": {"generate": {}, "judges": judges, **further},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return str(folder / "recipe.yaml")


@pytest.fixture
def files(tmp_path):
    return [str(responses(tmp_path / f"{name}.jsonl", texts)) for name, texts in TEXTS.items()]


def prefers_good(text, number):
    first, second = text.partition("# Answer A\n")[2].split("# Answer B\n")
    second = second.partition("# Your verdict")[0]
    good = ["good" in part for part in (first, second)]
    return says("tie" if good[0] == good[1] else "A" if good[0] else "B")


def endpoint(server, **further):
    quick = {"timeout_seconds": 5.0, "attempts": 1, "concurrency": 2}
    return {"kind": "endpoint", "url": server.url, "model": "judge-1"} | quick | further


def host(server):
    return server.url.removeprefix("http://").removesuffix("/v1")


def report(folder):
    return json.loads((folder / "report.json").read_text())


# --- strict ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({}, "eval.judges.j: missing kind"),
        ({"kind": "oracle"}, "eval.judges.j.kind: must be one of reward, reward_model, preference_model"),
        ({"kind": "reward"}, "eval.judges.j.reward: needed by kind 'reward'"),
        (
            {"kind": "reward", "reward": "clarty"},
            "eval.judges.j.reward: unknown, got 'clarty'; did you mean 'clarity'?",
        ),
        ({"kind": "reward", "reward": "clarity", "url": "x"}, "eval.judges.j.url: not used by kind 'reward', got 'x'"),
        ({"kind": "reward_model"}, "eval.judges.j.path: needed by kind 'reward_model'"),
        ({"kind": "reward_model", "path": "x", "temperature": 1.0}, "temperature: not used by kind 'reward_model'"),
        ({"kind": "language_model", "path": "x", "batch_size": 0}, "batch_size: must be at least 1, got 0"),
        ({"kind": "endpoint", "url": "http://x"}, "eval.judges.j.model: needed by kind 'endpoint'"),
        ({"kind": "endpoint", "url": "http://x", "model": "m", "attempts": 0}, "attempts: must be at least 1, got 0"),
        (
            {"kind": "endpoint", "url": "u", "model": "m", "timeout_seconds": 0.0},
            "must be finite and positive, got 0.0",
        ),
        ({"kind": "reward", "reward": "clarity", "temperature": -1.0}, "temperature: must be finite and not negative"),
        ({"kind": "reward", "reward": "clarity", "paht": "x"}, "eval.judges.j.paht: unknown key"),
    ],
)
def test_settings_of_a_judge_are_those_of_its_kind(tmp_path, judge, message):
    with pytest.raises(RecipeError) as error:
        load_recipe(write_recipe(tmp_path, {"j": judge}))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["a/b", "..", "", "x" * 41, "é"])
def test_the_name_of_a_judge_is_fit_for_a_file(tmp_path, name):
    with pytest.raises(RecipeError, match="judges: a name is up to 40 letters, digits, _ and -"):
        load_recipe(write_recipe(tmp_path, {name: {"kind": "reward", "reward": "clarity"}}))


@pytest.mark.parametrize("key", ["judges", "gold_reward", "instructions", "refusals", "reference_point"])
def test_what_scores_answers_needs_answers(tmp_path, key):
    given = {
        "judges": {"j": {"kind": "reward", "reward": "clarity"}},
        "gold_reward": "clarity",
        "instructions": {"path": "x"},
        "refusals": {"path": "x"},
        "reference_point": {"clarity": 0.0},
    }
    path = write_recipe(tmp_path, {})
    values = yaml.safe_load((tmp_path / "recipe.yaml").read_text()) | {"eval": {key: given[key]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match=f"{key}: scores generated answers, so `generate` is needed too"):
        load_recipe(path)


def prepared(tmp_path, judge, **kw):
    recipe = load_recipe(write_recipe(tmp_path, {"j": judge}))
    return prepare_judges(recipe.eval, recipe.model, **kw)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (
            {"kind": "reward", "reward": "clarity", "options": {"x": 1}},
            "eval.judges.j: reward 'clarity': x: unknown key",
        ),
        ({"kind": "reward", "reward": "conciseness"}, "reward 'conciseness' counts tokens, which judges do not see"),
        (
            {"kind": "reward", "reward": "os:system"},
            "would run code that the recipe names; if you know it, add --allow",
        ),
        ({"kind": "reward_model", "path": "nowhere"}, "eval.judges.j: nowhere: no preference_model.json there"),
        ({"kind": "preference_model", "path": "nowhere"}, "name a folder that PreferenceModelTrainer saved"),
    ],
)
def test_what_cannot_judge_is_told_before_any_weight_is_loaded(tmp_path, judge, message):
    with pytest.raises(RunError) as error:
        prepared(tmp_path, judge)
    assert message in str(error.value)


# --- permission --------------------------------------------------------------------------------


def test_an_endpoint_is_asked_only_with_permission(files, tmp_path, capsys):
    with Server(prefers_good) as server:
        words = [*files, "--recipe", write_recipe(tmp_path, {"j": endpoint(server)}), "-o", str(tmp_path / "out")]
        for allow in ([], ["--allow", "example.org"], ["--allow", "127.0.0.1"]):
            assert alignkit(["compare", *words, *allow]) == 2
            shown = capsys.readouterr().err
            assert f"eval.judges.j: prompts and answers would be sent to '{host(server)}'" in shown
            assert f"if you agree, add --allow {host(server)}" in shown
        assert server.requests == []
        assert alignkit(["compare", *words, "--allow", host(server)]) == 0
        assert len(server.requests) > 0


@pytest.mark.parametrize(
    ("url", "variable", "needed"),
    [
        ("https://api.example.org/v1", None, "api.example.org"),
        ("https://api.example.org:8443/v1", "KEY", "KEY@api.example.org:8443"),
        ("https://good.org@evil.org/v1", None, "evil.org"),
    ],
)
def test_permission_names_who_is_sent_what(url, variable, needed):
    assert permission({"url": url, "key_variable": variable}) == needed


def test_a_key_is_sent_only_where_it_was_allowed_to_go(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    judge = {"kind": "endpoint", "url": "https://api.example.org/v1", "model": "m", "key_variable": "JUDGE_KEY"}
    with pytest.raises(RunError) as error:
        prepared(tmp_path, judge, allow=["api.example.org"], ledgers=tmp_path)
    assert "prompts and answers, and the key in JUDGE_KEY would be sent to 'api.example.org'" in str(error.value)
    assert "add --allow JUDGE_KEY@api.example.org" in str(error.value)
    assert "secret" not in str(error.value)
    assert "j" in prepared(tmp_path, judge, allow=["JUDGE_KEY@api.example.org"], ledgers=tmp_path)
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(RunError, match="eval.judges.j.key_variable: the environment variable 'JUDGE_KEY' is not set"):
        prepared(tmp_path, judge, allow=["JUDGE_KEY@api.example.org"], ledgers=tmp_path)


def test_verdicts_need_a_place(tmp_path):
    judge = {"kind": "endpoint", "url": "https://api.example.org/v1", "model": "m"}
    with pytest.raises(RunError, match="what an endpoint said is kept, .* name a folder with --out"):
        prepared(tmp_path, judge, allow=["api.example.org"])


# --- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["out", "page.html"])
def test_nothing_is_asked_twice(files, tmp_path, out):
    with Server(prefers_good) as server:
        words = [*files, "--recipe", write_recipe(tmp_path, {"j": endpoint(server)}), "-o", str(tmp_path / out)]
        assert alignkit(["compare", *words, "--allow", host(server)]) == 0
        asked = len(server.requests)
        ledger = tmp_path / ("out/judges" if out == "out" else "page-judges") / "j.jsonl"
        before = ledger.read_bytes()
        assert alignkit(["compare", *words, "--allow", host(server)]) == 0
        assert len(server.requests) == asked == len(set(server.texts()))
        assert ledger.read_bytes() == before
    if out == "out":
        found = report(tmp_path / "out")
        assert found["estimates"]["win_rate/j"]["value"] == 1.0
        assert found["estimates"]["c/win_rate/j"]["value"] == 0.75
        assert found["estimates"]["position_bias/j/flips"]["value"] == 0.0
        assert "key" not in found["settings"]["judges"]["j"]


def test_what_failed_is_told_and_asked_again(files, tmp_path, capsys):
    broken = True

    def answer(text, number):
        if broken and "question 2" in text:
            return failing(500)
        return prefers_good(text, number)

    with Server(answer) as server:
        recipe = write_recipe(tmp_path, {"j": endpoint(server)})
        words = [*files[:2], "--recipe", recipe, "-o", str(tmp_path / "out"), "--allow", host(server)]
        assert main(words) == 0
        first = report(tmp_path / "out")
        judged = first["judges"]["j"]
        assert [(f["prompt"], f["first"], f["second"]) for f in judged["failures"]] == [(2, "a", "b"), (2, "b", "a")]
        assert all("status 500" in failure["error"] for failure in judged["failures"])
        assert (judged["win_rates"]["a"]["wins"], judged["win_rates"]["a"]["failed"]) == (3, 1)
        assert "2 questions have no verdict" in capsys.readouterr().out
        assert "status 500" in (tmp_path / "out" / "report.html").read_text()
        asked = len(server.requests)
        broken = False
        assert main(words) == 0
        assert len(server.requests) == asked + 2
        assert report(tmp_path / "out")["judges"]["j"]["win_rates"]["a"]["wins"] == 4


# --- models as judges --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNKIT_CACHE", str(folder / "cache"))
        for dimension in (1, 2):
            trainer = trained(folder / f"t{dimension}", dimension=dimension, tau=0.5, max_steps=1, lora=None)
            trainer.save_model(str(folder / f"rm{dimension}"))
        yield make_world(folder)


def test_models_judge_the_answers_of_models(world, tmp_path):
    judges = {
        "rm": {"kind": "reward_model", "path": str(world / "rm1")},
        "gpm": {"kind": "preference_model", "path": str(world / "rm2")},
        "lm": {"kind": "language_model", "path": str(world / "other"), "batch_size": 4},
    }
    recipe = yaml.safe_load((world / "recipe.yaml").read_text())
    recipe["eval"] |= {"judges": judges}
    recipe["eval"]["generate"] |= {"samples": 2, "prompts": 3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    runs = [str(world / "policy"), str(world / "other")]
    words = [*runs, "--recipe", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "out")]
    assert main(words, compare=True) == 0
    found = report(tmp_path / "out")
    for name in judges:
        rates = found["judges"][name]["win_rates"]
        assert set(rates) == set(runs)
        assert all(0 <= rate["win_rate"]["value"] <= 1 and rate["failed"] == 0 for rate in rates.values())
        assert len(found["comparisons"][f"win_rate/{name}"]) == 3
    assert set(found["best_of_k"]) == {f"rm: {who}" for who in (*runs, "ref")}
    assert found["judges"]["lm"]["position_bias"] is not None
    assert found["judges"]["gpm"]["position_bias"] is None


def test_a_model_of_several_dimensions_is_no_reward_model(world, tmp_path):
    with pytest.raises(RunError, match=r"rm2 has 2 dimensions, .* use kind: preference_model"):
        prepared(tmp_path, {"kind": "reward_model", "path": str(world / "rm2")})
