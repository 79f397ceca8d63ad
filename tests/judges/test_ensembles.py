"""Ensembles of reward models as judges of a recipe: their settings, one base for all members, their scores and calibration."""

import json

import numpy as np
import pytest
import yaml
from reward_models import SEQ_CLS, trained
from stored_world import make_world
from trl import ModelConfig

from align import cli
from align.errors import RunError
from align.judges.from_recipe import prepare_judge
from align.judges.from_scores import scorers_of
from align.judges.scoring import score_rows
from align.recipe.scores import ScoreConfig
from align.recipe.sections import JudgeConfig
from eval.__main__ import main

ANSWERS = ["c", "d e", "f"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensembles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNKIT_CACHE", str(folder / "cache"))
        for name, dimension, steps in (("a", 1, 2), ("b", 1, 4), ("several", 2, 1)):
            trainer = trained(folder / f"t-{name}", dimension=dimension, max_steps=steps, lora=SEQ_CLS)
            trainer.save_model(str(folder / name))
        yield make_world(folder)


def said(world, **settings):
    return {"kind": "ensemble", "paths": [str(world / "a"), str(world / "b")]} | settings


def made(world, **settings):
    return prepare_judge("judge", JudgeConfig(**said(world, **settings)), ModelConfig(), [], None)()


def expected(judge):
    each = np.stack([member.score("a b", ANSWERS) / member.tau for member in judge.members])
    return each - each.mean(axis=1, keepdims=True) + each.mean()


def test_members_share_their_base_and_are_combined(world):
    judge = made(world, combine="lower", deviations=2)
    weights = [dict(member.model.named_parameters()) for member in judge.members]
    base = [name for name in weights[0] if "lora_" not in name and "score" not in name]
    assert base
    assert all(weights[0][name].data_ptr() == weights[1][name].data_ptr() for name in base)
    each = expected(judge)
    assert np.abs(each[0] - each[1]).max() > 1e-4
    assert judge.score("a b", ANSWERS) == pytest.approx(each.mean(axis=0) - 2 * each.std(axis=0))


def test_an_ensemble_scores_answers_as_rewards_do(world):
    judge = JudgeConfig(**said(world, combine="min"))
    scorers = scorers_of(ScoreConfig(judges={"least": judge}), ModelConfig(), where="score")
    rows = score_rows([{"prompt": "a b", "completions": ANSWERS}], scorers).rows
    assert [one["least"] for one in rows[0]["rewards"]] == pytest.approx(expected(made(world)).min(axis=0).tolist())


def test_an_ensemble_judges_the_answers_of_models(world, tmp_path):
    recipe = yaml.safe_load((world / "recipe.yaml").read_text())
    recipe["eval"] |= {"judges": {"least": said(world, combine="min")}}
    recipe["eval"]["generate"] |= {"samples": 2, "prompts": 3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = [str(world / "policy"), "--recipe", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    (rates,) = found["judges"]["least"]["win_rates"].values()
    assert rates["failed"] == 0
    assert set(found["settings"]["about"]["judges"]) == {"least/0", "least/1"}
    assert set(found["best_of_k"]) == {f"least: {who}" for who in (words[0], "ref")}


def test_its_calibration_is_told_beside_its_agreement(world, tmp_path, capsys):
    rows = [{"prompt": f"a {i}", "chosen": f"b {i} c", "rejected": f"d {i}"} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    by = [
        f"ens={json.dumps(said(world))}", "certain={kind: reward, reward: repetition}",
    ]  # fmt: skip
    words = [word for one in by for word in ("--by", one)]
    assert cli.main(["judge-agreement", str(tmp_path / "rows.jsonl"), *words, "-o", str(tmp_path / "o.json")]) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    assert set(found["certain"]["all"]) == {"accuracy", "kappa"}
    preferred = np.array([made(world).prefer(r["prompt"], [r["chosen"], r["rejected"]])[0, 1] for r in rows])
    assert found["ens"]["all"]["brier"]["value"] == pytest.approx(((1 - preferred) ** 2).mean(), abs=1e-6)
    assert found["ens"]["all"]["nll"]["value"] == pytest.approx(-np.log(preferred).mean(), abs=1e-6)
    assert {"ece", "temperature"} < set(found["ens"]["all"])
    assert "brier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paths": None}, "paths: needed by kind 'ensemble'"), ({"paths": ["x"]}, "paths: at least two reward models, each once"),
        ({"paths": ["x", "x"]}, "each once"), ({"deviations": 1}, "deviations: not negative, and of combine: lower alone"),
        ({"combine": "lower", "deviations": -1}, "deviations: not negative"), ({"path": "x"}, "path: not used by kind 'ensemble'"),
    ],
)  # fmt: skip
def test_settings_that_are_none_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        JudgeConfig(**{"kind": "ensemble", "paths": ["x", "y"]} | settings)


def test_members_without_rewards_are_refused_before_they_are_loaded(world):
    with pytest.raises(RunError, match="several has 2 dimensions, so its preferences follow from no rewards"):
        made(world, paths=[str(world / "a"), str(world / "several")])
    with pytest.raises(RunError, match=r"nowhere: no preference_model.json there"):
        made(world, paths=[str(world / "a"), "nowhere"])
