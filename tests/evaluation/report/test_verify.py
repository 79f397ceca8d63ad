"""Runs held against expectations, compared with each other, and runs of methods without pairs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import align
from align import cli
from align.errors import RunError
from align.recipe.loading import Expectation, load_recipe
from align.recipe.shipped import recipes_dir
from align.rewards import REWARDS
from align.rewards.load import Known
from align.run_identity import recipe_as_written, recipe_differences
from eval.__main__ import main as evaluate
from eval.evaluate import _check_together
from eval.subjects import load_subject
from eval.verify import Checked


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A recipe file with expectations, and finished runs of it: `a`, `b` and `c` differ in β, `sft` has no pairs."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNKIT_CACHE", str(home / "cache"))
        recipe = yaml.safe_load((recipes_dir() / "dpo" / "tiny.yaml").read_text())
        pairs = {"path": str(recipes_dir() / "data" / "tiny.jsonl")}
        recipe["data"] = {"train": pairs, "eval": {"tiny": dict(pairs)}}
        recipe["train"] |= {"max_steps": 2, "save_strategy": "no", "disable_tqdm": True, "output_dir": "runs/x"}
        recipe["eval"] = {"generate": {"prompts": 4, "max_new_tokens": 8}, "gold_reward": "positive_sentiment"}
        recipe["expect"] = {
            "tiny/ranking_accuracy/longer_wins": {"value": 0.5, "tol": 0.5},
            "tiny/calibration/nll": {"value": 0.0, "tol": 0.0, "direction": "at_least"},
            "jensen_shannon": {"value": 0.7, "tol": 0.0, "direction": "at_most"},
        }
        (home / "dpo.yaml").write_text(yaml.safe_dump(recipe))
        for name, beta, rate in (("a", 0.1, 0.01), ("b", 1.0, 0.3), ("c", 5.0, 0.3)):
            settings = {"output_dir": home / name, "beta": beta, "learning_rate": rate}
            align.run(home / "dpo.yaml", [f"train.{key}={value}" for key, value in settings.items()])
        align.run(
            "supervised/tiny",
            [f"train.output_dir={home / 'sft'}", "train.max_steps=1", "train.save_strategy='no'", "expect=null"],
        )
        yield home


@pytest.fixture
def run(home, tmp_path):
    return shutil.copytree(home / "a", tmp_path / "a")


@pytest.fixture
def training(monkeypatch):
    """What would have been trained."""
    begun = []
    monkeypatch.setattr("align.train.run", lambda recipe, **kw: begun.append(kw))
    return begun


def report(folder):
    return json.loads((folder / "report.json").read_text())


# --- expectations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "holds"),
    [("near", [0, 1, 1, 1, 0, 0, 0]), ("at_least", [0, 1, 1, 1, 1, 1, 0]), ("at_most", [1, 1, 1, 1, 0, 0, 0])],
)
def test_an_expectation_has_a_direction(direction, holds):
    wanted = Expectation(1.0, 0.5, direction)
    assert [wanted.holds(got) for got in (0.4, 0.5, 1.0, 1.5, 1.6, float("inf"), float("nan"))] == holds


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Expectation(1.0, 0.5), "expected 1.0 ± 0.5"),
        (Expectation(1.0, 0.0), "expected 1.0 ± 0.0"),
        (Expectation(1.0, 0.0, "at_least"), "expected at least 1.0"),
        (Expectation(1.0, 0.5, "at_most"), "expected at most 1.0 ± 0.5"),
    ],
)
def test_a_line_says_what_was_expected_and_measured(wanted, words):
    got = {"value": 2.0, "low": 1.0, "high": float("inf"), "n": 7.0}
    assert str(Checked("kl", wanted, got, False)) == f"FAIL kl: 2.0000 [1.0000, inf] (n=7), {words}"


def test_a_recipe_names_a_direction(home):
    recipe = load_recipe(home / "dpo.yaml")
    assert recipe.expect["jensen_shannon"].direction == "at_most"
    with pytest.raises(align.recipe.loading.RecipeError, match="direction"):
        load_recipe(home / "dpo.yaml", ["expect.jensen_shannon.direction=below"])


# --- verify ------------------------------------------------------------------------------------


def test_a_run_without_a_report_is_evaluated(run, capsys):
    assert cli.main(["verify", str(run)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in shown] == ["ok  "] * 3
    assert (run / "report.html").is_file()
    before = (run / "report.json").stat().st_mtime_ns
    assert cli.main(["verify", str(run), "expect.jensen_shannon.value=-1"]) == 1
    assert "FAIL jensen_shannon" in capsys.readouterr().out
    assert (run / "report.json").stat().st_mtime_ns == before


def test_overrides_have_the_run_evaluated_anew_and_out_says_where(run, tmp_path):
    (run / "report.json").write_text("{}")
    assert cli.main(["verify", str(run), "eval.pairs=4", "--out", str(tmp_path / "new")]) == 0
    assert report(tmp_path / "new")["estimates"]["tiny/calibration/nll"]["n"] == 4
    assert (run / "report.json").read_text() == "{}"
    assert cli.main(["verify", str(run), "eval.pairs=5"]) == 0
    assert report(run)["estimates"]["tiny/calibration/nll"]["n"] == 5


def test_a_recipe_is_trained_and_held_against_what_it_expects(home, tmp_path, capsys):
    words = ["verify", str(home / "dpo.yaml"), f"train.output_dir={tmp_path / 'run'}"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("ok  ") == 3
    assert (tmp_path / "run" / "adapter").is_dir()
    assert report(tmp_path / "run")["name"] == "run"


def test_a_finished_run_of_the_recipe_is_taken_and_evaluated_as_the_recipe_says(home, run, training):
    words = ["verify", str(home / "dpo.yaml"), f"train.output_dir={run}", "eval.pairs=6"]
    assert cli.main(words) == 0
    assert report(run)["estimates"]["tiny/calibration/nll"]["n"] == 6
    assert training == []


def test_an_unfinished_run_of_the_recipe_goes_on(home, run, training):
    shutil.rmtree(run / "adapter")
    assert cli.main(["verify", str(home / "dpo.yaml"), f"train.output_dir={run}", "--allow", "a:b"]) == 2
    assert training == [{"resume": "auto", "allow": ["a:b"]}]


def test_a_run_of_another_recipe_is_left_alone(home, run, training, capsys):
    words = ["verify", str(home / "dpo.yaml"), f"train.output_dir={run}"]
    assert cli.main([*words, "train.beta=0.2"]) == 2
    assert "holds a run of another recipe:\n  train.beta: 0.1 -> 0.2\nchoose another" in capsys.readouterr().err
    assert training == []
    recipe = load_recipe(home / "dpo.yaml")
    assert not recipe_differences(home / "a", recipe_as_written(recipe))
    assert recipe_differences(home / "b", recipe_as_written(recipe))
    for other in ("data.holdout=0.5", "model.dtype=bfloat16", "lora.r=2"):
        assert recipe_differences(home / "a", recipe_as_written(load_recipe(home / "dpo.yaml", [other])))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tools/tiny"], "tools/tiny: the recipe expects nothing; add an `expect` section"),
        (["dpo/tinny"], "did you mean 'dpo/tiny'?; nor is it a run directory"),
        (["{empty}"], "no recipe.resolved.yaml there, so not a run directory; name one, or a recipe"),
        (["{home}/sft"], "its recipe expects nothing"),
        (["{home}/a", "expect={{kk: {{value: 1, tol: 1}}}}"], "the report has no estimate 'kk'; it has tiny/"),
    ],
)
def test_what_cannot_be_verified_is_told_in_a_line(home, tmp_path, training, capsys, words, message):
    (tmp_path / "empty").mkdir()
    places = {"home": home, "empty": tmp_path / "empty"}
    assert cli.main(["verify", *(word.format(**places) for word in words), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert training == []


def test_an_expectation_from_seeds_is_a_prediction_interval(monkeypatch, capsys, tmp_path):
    """`python scripts/expected.py RECIPE FOLDER ESTIMATE`: 99% of further seeds are within the tolerance."""
    monkeypatch.syspath_prepend(str(recipes_dir().parent / "scripts"))
    import expected  # noqa: PLC0415 - a script

    rng = np.random.default_rng(0)
    within = [
        abs(one[-1] - value) <= tol
        for one in rng.normal(2, 3, (3000, 9))
        for value, tol in [expected.expected(list(one[:-1]))]
    ]
    assert 0.985 < np.mean(within) < 0.997
    assert expected.expected([1.0, 1.0]) == (1.0, 0.0)
    monkeypatch.setattr(expected, "estimates_of", lambda recipe, seed, folder: {"kl": 0.1 * seed, "ece": 1.0})
    expected.main(["dpo/tiny", str(tmp_path), "kl", "--seeds", "3"])
    assert capsys.readouterr().out == "expect:\n  kl: {value: 0.1, tol: 1.2}\n"


# --- compare -----------------------------------------------------------------------------------


def test_one_run_is_refused_before_anything_of_it_is_read(capsys):
    assert evaluate(["nowhere"], compare=True) == 2
    assert "nowhere: one run cannot be compared; name another" in capsys.readouterr().err


def test_every_pair_of_runs_is_compared(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(
        REWARDS, "positive_sentiment", Known(lambda texts: [float(len(text.encode())) for text in texts], 0, 1e9)
    )
    runs = [str(home / name) for name in "abc"]
    assert cli.main(["compare", *runs, "--out", str(tmp_path)]) == 0
    got = report(tmp_path)
    assert set(got["comparisons"]) == {"tiny/ranking_accuracy/implicit_reward", "gold_reward"}
    pairs = {name: [(row["first"], row["second"]) for row in rows] for name, rows in got["comparisons"].items()}
    assert pairs["tiny/ranking_accuracy/implicit_reward"] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert set(pairs["gold_reward"]) >= {("a", "b"), ("a", "c"), ("b", "c"), ("a", "reference")}
    estimates, answers = got["estimates"], [json.loads(line) for line in (tmp_path / "responses.jsonl").open()]
    rewards = {
        "a": [row["policy_reward"] for row in answers],
        **{who: [row["others"][who]["reward"] for row in answers] for who in "bc"},
    }
    assert [len(row["others"]["b"]["text"].encode()) for row in answers] == rewards["b"]
    assert estimates["b/gold_reward/policy"]["value"] == pytest.approx(sum(rewards["b"]) / 4)
    first = got["comparisons"]["gold_reward"][pairs["gold_reward"].index(("a", "b"))]["difference"]
    assert first["value"] == pytest.approx((sum(rewards["a"]) - sum(rewards["b"])) / 4)
    assert {"b/kl", "c/entropy/policy", "c/tiny/calibration/ece"} <= set(estimates)
    assert not [name for name in estimates if name.startswith("b/") and name.endswith("/ref")]
    assert capsys.readouterr().out.count("p, corrected") == 1
    # each policy's answers are its own, and the others' do not depend on who is named first
    assert cli.main(["compare", runs[1], runs[0], "--out", str(tmp_path / "turned")]) == 0
    turned = report(tmp_path / "turned")["estimates"]
    for name in ("kl", "forward_kl", "gold_reward/policy", "entropy/policy", "tiny/calibration/nll"):
        assert turned[name]["value"] == pytest.approx(estimates[f"b/{name}"]["value"]), name
        assert turned[f"a/{name}"]["value"] == pytest.approx(estimates[name]["value"]), name
        assert estimates[f"b/{name}"]["value"] != estimates[name]["value"], name


def test_a_page_alone(home, tmp_path):
    page = tmp_path / "new" / "both.html"
    assert cli.main(["compare", str(home / "a"), str(home / "b"), "-o", str(page)]) == 0
    assert [path.name for path in page.parent.iterdir()] == ["both.html"]
    assert "Runs compared" in page.read_text()


def test_one_run_is_not_compared(home, capsys):
    assert cli.main(["compare", str(home / "a")]) == 2
    assert "a: one run cannot be compared; name another" in capsys.readouterr().err


# --- methods without pairs ---------------------------------------------------------------------


def test_a_run_without_pairs_is_evaluated_by_its_answers(home, tmp_path):
    run, answers = str(home / "sft"), "eval.generate={prompts: 4, max_new_tokens: 8}"
    assert evaluate([run, answers, "--out", str(tmp_path)]) == 0
    got = report(tmp_path)
    assert {"kl", "forward_kl", "jensen_shannon", "distinct_1/policy", "length_tokens/difference"} <= set(
        got["estimates"]
    )
    assert not [name for name in got["estimates"] if "ranking" in name or "calibration" in name]
    assert "a KL of" in got["verdict"]
    assert evaluate([run, str(home / "a"), "--out", str(tmp_path)]) == 0
    assert "a/tiny/nll/policy" in report(tmp_path)["estimates"]
    assert cli.main(["compare", run, str(home / "a"), answers, "--out", str(tmp_path)]) == 0
    assert {"kl", "a/kl"} <= set(report(tmp_path)["estimates"])


def test_a_run_that_learnt_from_prompts_scores_no_others(home):
    loaded = load_subject(str(home / "a"))
    one, other = (replace(loaded, name=name, recipe=load_recipe("online/tiny-grpo")) for name in "ab")
    with pytest.raises(RunError, match="a: method 'dynamic_grpo' has no rows on which other runs could be scored"):
        _check_together(one, [other], compare=False)
    _check_together(one, [other], compare=True)


def test_a_run_without_pairs_is_ranked_beside_one_that_has_them(home, tmp_path):
    assert evaluate([str(home / "a"), str(home / "sft"), "--out", str(tmp_path)]) == 0
    estimates = report(tmp_path)["estimates"]
    assert "sft/tiny/ranking_accuracy/implicit_reward" in estimates
    assert "tiny/calibration/ece" in estimates
    assert "sft/tiny/calibration/ece" not in estimates


def test_a_judge_is_refused_before_any_weight_is_loaded(home, tmp_path, capsys, monkeypatch):
    recipe = load_recipe("preference_model/tiny")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "recipe.resolved.yaml").write_text(recipe.resolved_yaml())
    monkeypatch.setattr("eval.__main__.load_subjects", lambda *_: pytest.fail("loaded"))
    for words in ([str(tmp_path / "judge")], [str(home / "a"), str(tmp_path / "judge")]):
        assert evaluate(words) == 2
        assert "align.models.preference_model.load_preference_model(FOLDER)" in capsys.readouterr().err
