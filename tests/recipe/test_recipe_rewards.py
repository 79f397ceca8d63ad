"""The `rewards` section of a recipe."""

import json

import pytest
import yaml

import align
from align.errors import RunError
from align.recipe.loading import RecipeError, load_recipe
from align.rewards import REWARDS

ROW = {"prompt": "two and two", "answer": "4"}
SMALL = ("train.use_cpu=true", "train.bf16=false")


def written(tmp_path, rewards, method="dynamic_grpo", rows=(ROW,) * 4, **data):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "method": method,
        "model": {"model_name_or_path": "tiny-random"},
        "data": {"train": {"path": str(path), **data}},
        "rewards": rewards,
        "train": {"output_dir": "runs/x", "num_generations": 2, "per_device_train_batch_size": 2},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return file


def test_rewards_are_names_or_names_with_options(tmp_path):
    assert load_recipe(written(tmp_path, ["correctness", "clarity"]), SMALL).rewards == {
        "correctness": {},
        "clarity": {},
    }
    found = load_recipe(written(tmp_path, {"correctness": None, "repetition": {}}), SMALL)
    assert found.rewards == {"correctness": {}, "repetition": {}}
    assert found.rows == "prompts"


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (["corectness"], r"rewards.corectness: unknown reward; did you mean 'correctness'\?"),
        (["clarity", "clarity"], "rewards: 'clarity' is named twice"),
        ({"clarity": {"colour": 1}}, "rewards.clarity: .*colour"),
        ({"clarity": 3}, "rewards.clarity: expected options, got"),
        ([], "rewards: expected names of reward functions"),
        (None, f"rewards: missing section; names of reward functions: {next(iter(REWARDS))}"),
    ],
)
def test_what_is_no_reward_is_told_before_anything_is_loaded(tmp_path, rewards, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, rewards), SMALL)


def test_rewards_belong_to_online_methods():
    with pytest.raises(RecipeError, match="rewards: not used by this method; rewards belong to online methods"):
        load_recipe("rpo/tiny", ["rewards=[clarity]"])


def test_a_column_that_a_reward_reads_must_be_there(tmp_path):
    file = written(tmp_path, ["correctness"], rows=[{"prompt": "two and two", "solution": "4"}] * 4)
    with pytest.raises(RunError, match="no column 'answer', which the reward 'correctness' reads; there are"):
        align.run(file, [*SMALL, f"train.output_dir={tmp_path / 'run'}"])


def test_a_preset_cannot_be_changed_under_its_name():
    with pytest.raises(RecipeError, match="train.objective: method 'copg' is .*; to choose it, use method 'pairwise'"):
        load_recipe("pairwise/tiny-scored", ["method=copg", "train.objective={ipo: 1.0}"])


@pytest.mark.parametrize(("method", "kind"), [("pairwise/tiny", "cached"), ("supervised/tiny", "model")])
def test_a_reference_of_another_kind_is_for_preference_pairs(method, kind):
    path = ["ref.path=x"] if kind == "model" else []
    if method == "pairwise/tiny":
        assert load_recipe(method, [f"ref.kind={kind}"]).columns[-1] == "ref_rejected_logps"
    else:
        with pytest.raises(RecipeError, match=r"ref.kind: this method has base and adapter, got 'model'"):
            load_recipe(method, [f"ref.kind={kind}", *path])
