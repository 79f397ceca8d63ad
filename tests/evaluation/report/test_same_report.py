"""A report is about one run, its data and its settings; eval and verify take none for another."""

import json
import shutil

import pytest

import align
from align import cli
from align.recipe.loading import load_recipe
from eval.__main__ import main as evaluate
from eval.identity import measured, other_than, weights_of_judges


def words(run, beta=0.1):
    expect = "expect={tiny/calibration/nll: {value: 0.0, tol: 0.0, direction: at_least}}"
    short = ["train.max_steps=2", "train.save_strategy='no'", "eval.generate=null"]
    return [*short, expect, f"train.beta={beta}", f"train.output_dir={run}"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Finished runs `a` and `b` that differ in β, and their recipe, with an expectation."""
    home = tmp_path_factory.mktemp("same")
    for name, beta in (("a", 0.1), ("b", 1.0)):
        align.run("dpo/tiny", words(home / name, beta))
    return home


@pytest.fixture
def run(home, tmp_path):
    return shutil.copytree(home / "a", tmp_path / "a")


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_a_report_of_other_settings_data_or_weights_is_not_read(run, capsys, caplog):
    assert evaluate([str(run), "eval.pairs=2"]) == 0
    about = report(run)["settings"]["about"]
    own = json.loads((run / "env.json").read_text())["run"]
    assert {key: about["policies"]["a"][key] for key in ("run", "step")} == {"run": own, "step": 2}
    assert cli.main(["verify", str(run)]) == 0
    assert report(run)["estimates"]["tiny/calibration/nll"]["n"] == 10
    assert "about other settings than there are now; the run is evaluated anew" in caplog.text
    old = report(run)
    old["settings"]["about"]["policies"]["a"]["weights"] = "0" * 64
    old["settings"]["about"]["data"]["tiny"] = "0" * 64
    (run / "report.json").write_text(json.dumps(old))
    caplog.clear()
    assert cli.main(["verify", str(run)]) == 0
    assert "about other weights, data than there are now" in caplog.text
    assert report(run)["settings"]["about"] == about | {"settings": report(run)["settings"]["about"]["settings"]}


def test_a_stale_adapter_is_not_the_run(run, capsys):
    """A finished run was made longer, and killed before its end."""
    env = json.loads((run / "env.json").read_text())
    env["identity"]["settings"]["train.max_steps"] = env["written"]["train.max_steps"] = 400
    (run / "env.json").write_text(json.dumps(env))
    recipe = run / "recipe.resolved.yaml"
    recipe.write_text(recipe.read_text().replace("max_steps: 2\n", "max_steps: 400\n"))
    for command in ("eval", "verify"):
        assert cli.main([command, str(run)]) == 2
        said = capsys.readouterr().err
        assert "it is of step 2, and not of the run that the directory now holds" in said
        assert "train.max_steps: 2 -> 400" in said
        assert "continue it with --resume auto" in said


def test_an_adapter_that_a_kill_cut_short_goes_on(run, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr("align.train.run", lambda recipe, **kw: begun.append(kw))
    (run / "adapter" / "alignkit.json").unlink()
    assert cli.main(["eval", str(run)]) == 2
    assert "was not written to its end" in capsys.readouterr().err
    cli.main(["verify", "dpo/tiny", *words(run)])
    assert begun == [{"resume": "auto", "allow": []}]


def test_a_run_that_is_replaced_while_it_is_evaluated_gets_no_report(home, run, monkeypatch, capsys):
    def meanwhile(*_, **__):
        shutil.rmtree(run)
        shutil.copytree(home / "b", run)

    monkeypatch.setattr("eval.evaluate.rank_pairs", meanwhile)
    assert evaluate([str(run)]) == 2
    assert f"{run}: was trained anew while it was evaluated; no report is written" in capsys.readouterr().err
    assert not (run / "report.json").exists()


def test_a_judge_that_was_trained_anew_is_another(run, home, tmp_path):
    judge = shutil.copytree(home / "a" / "adapter", tmp_path / "judge")
    words = [
        f"eval.judges={{gpm: {{kind: preference_model, path: {judge}}}, sure: {{kind: reward, reward: repetition}}}}",
        "eval.generate={prompts: 4, max_new_tokens: 8}",
    ]
    recipe = load_recipe(run / "recipe.resolved.yaml", words)
    before = measured(recipe, {}, {})
    assert before["judges"].keys() == {"gpm"}
    shutil.copy(home / "b" / "adapter" / "adapter_model.safetensors", judge)
    after = measured(recipe, {}, {})
    about = {"settings": {"about": {"policies": {}, **before}}}
    assert other_than(about, {}, before) == []
    assert other_than(about, {}, after) == ["judges"]
    assert "judges" not in measured(load_recipe(run / "recipe.resolved.yaml"), {}, {})
    assert (
        weights_of_judges(
            load_recipe(run / "recipe.resolved.yaml", [words[0].replace(str(judge), "a/hub-id"), words[1]])
        )
        == {}
    )
