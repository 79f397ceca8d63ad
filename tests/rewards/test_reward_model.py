"""A trained reward model as a reward of a recipe: its scores less a constant, twice under two names, one base for all."""

import numpy as np
import pytest
import yaml
from reward_models import SEQ_CLS, trained

from align.errors import RecipeError, RunError
from align.models.preference_model import SETTINGS, load_preference_model
from align.recipe.loading import load_recipe
from align.rewards import REWARDS, make_reward, reward_model
from align.train import run
from eval.measures.rewards import scale_of


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward-models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNKIT_CACHE", str(folder / "cache"))
        for name, dimension, steps in (("a", 1, 2), ("b", 1, 4), ("several", 2, 1)):
            made = trained(folder / f"t-{name}", dimension=dimension, max_steps=steps, lora=SEQ_CLS)
            made.save_model(str(folder / name))
        yield folder


def test_a_reward_is_the_models_score_less_a_constant_in_the_order_of_the_completions(models):
    model, reward = load_preference_model(models / "a"), make_reward("reward_model", path=str(models / "a"), less=0.5)
    chat = [{"role": "user", "content": "a b"}]
    said = [("x y", "c"), (chat, [{"role": "assistant", "content": "d e"}]), ("x y", "f"), (chat, "g")]
    prompts, completions = map(list, zip(*said, strict=True))
    found = reward(prompts=prompts, completions=completions)
    plain = model.score("x y", ["c", "f"]) / model.tau
    asked = model.score(chat, ["d e", "g"]) / model.tau
    assert found == pytest.approx([plain[0] - 0.5, asked[0] - 0.5, plain[1] - 0.5, asked[1] - 0.5], abs=1e-6)
    assert len(set(found)) == 4
    with pytest.raises(ValueError, match="prompts"):
        reward(completions=["c"])


def test_a_label_is_a_name_of_its_own_and_two_models_hold_their_base_once(models):
    both = [make_reward(f"reward_model@{name}", path=str(models / name)) for name in "ab"]
    assert [one.__name__ for one in both] == ["reward_model@a", "reward_model@b"]
    values = [one(prompts=["x y"] * 2, completions=["c", "d e"]) for one in both]
    assert np.abs(np.subtract(*values)).min() > 1e-4
    weights = [dict(reward_model._loaded(str(models / name)).model.named_parameters()) for name in "ab"]
    base = [name for name in weights[0] if "lora_" not in name and "score" not in name]
    assert all(weights[0][name].data_ptr() == weights[1][name].data_ptr() for name in base)
    assert make_reward("positive_sentiment@mine").__name__ == "positive_sentiment@mine"
    assert REWARDS["repetition@x"] is REWARDS["repetition"]
    assert not [name for name in ("repetition@", "repetition@a b", "nothing@x", "@x", 3) if name in REWARDS]
    with pytest.raises(KeyError, match="nothing"):
        REWARDS["nothing@x"]


def test_max_min_of_two_groups_trains_from_a_recipe(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNKIT_CACHE", str(models / "cache"))
    rewards = {
        f"reward_model@group_{k + 1}": {"path": str(models / name), "less": 5.0 * k} for k, name in enumerate("ab")
    }
    recipe = load_recipe("online/tiny-rloo", ["train.output_dir=run", "train.max_steps=2"]).raw | {"rewards": rewards}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"expect": {}} if "expect" in recipe else recipe))
    steps = [
        row for row in run(tmp_path / "recipe.yaml").trainer.state.log_history if "weights/reward_model@group_1" in row
    ]
    assert [row["weights/reward_model@group_2"] for row in steps] == [1.0, 1.0]  # the one that is worse off by five
    assert steps[0]["objectives/reward_model@group_2"] < steps[0]["objectives/reward_model@group_1"] - 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere", {}, rf"no {SETTINGS} there"), ("several", {}, "has 2 dimensions, so its preferences follow from no rewards"),
        ("a", {"less": float("inf")}, "less: must be finite"), ("a", {"path": 3}, "path: expected str"),
    ],
)  # fmt: skip
def test_what_gives_no_reward_is_told_before_anything_is_loaded(models, monkeypatch, name, options, message):
    monkeypatch.setattr(reward_model, "load_preference_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(RunError, match=message):
        make_reward("reward_model", **{"path": str(models / name)} | options)


def test_a_model_with_a_reference_is_no_reward(models, tmp_path):
    said = (models / "a" / SETTINGS).read_text()
    (tmp_path / SETTINGS).write_text(said.replace('"reference_column": null', '"reference_column": "reference"'))
    with pytest.raises(RunError, match="compares answers with a reference and gives no reward without"):
        make_reward("reward_model", path=str(tmp_path))


def test_a_recipe_without_the_model_is_refused_as_it_is_read(tmp_path):
    with pytest.raises(RecipeError, match=f"rewards.reward_model@x.*no {SETTINGS} there"):
        load_recipe("online/tiny-rloo", ["rewards={reward_model@x: {path: nowhere}, repetition: null}"])


def test_a_reward_without_a_range_is_scaled_by_what_was_seen():
    assert scale_of("reward_model@x", {"a": np.array([0.5, 2.0]), "b": np.array([-1.0])}) == (-1, 2)
    assert scale_of("repetition@x", {"a": np.array([0.5])}) == (0, 1)
