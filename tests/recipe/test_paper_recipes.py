"""Recipes of papers say what the authors' scripts say, value by value; each value was read in the script."""

import pytest

from align.data.rows.truncation import truncated
from align.recipe.shipped import recipes_dir
from align.strict.yaml_tree import read_tree

SAID = {
    "papers/rpo-average": {
        "train.num_train_epochs": 2, "train.per_device_train_batch_size": 2, "train.global_batch_size": 128,
        "train.learning_rate": 5e-7, "train.max_length": 1024, "train.lr_scheduler_type": "cosine_with_min_lr",
        "train.lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "train.warmup_steps": 0.03, "train.adam_beta1": 0.9,
        "train.adam_beta2": 0.95,
    },
    "papers/dynamic-reward-weighting-hypervolume": {
        "train.epsilon": 0.2, "train.delta": 3.0, "train.eval_on_start": True,
        "train.weighting_options": {
            "bounds": [[0.0, 1.0]] * 3, "reference": "first", "source": "evaluation", "gain": 1.0, "low": 0.5, "high": 2.0,
        },
        "rewards.correctness": {"boxed_only": True},
    },
    "papers/dynamic-reward-weighting-gradient": {
        "train.estimator_options": {"scale": "group", "standardise": "after_weighting"},
        "train.lr_scheduler_kwargs": {"power": 1.03, "lr_end": 0.0}, "rewards.correctness": {"boxed_only": True},
        "train.gradient_layers": "10-25",
    },
    "papers/fdpo-hh": {"train.beta": 0.3, "train.bf16": True, "model.dtype": "float32", "train.optim": "rmsprop"},
    "supervised/dft-math": {"model.model_name_or_path": "Qwen/Qwen2.5-Math-1.5B"},
}  # fmt: skip


STATED = {
    "papers/fdpo-hh": "prompts are not cut (code: to their last 256 tokens), long answers are cut to max_length from the right",
}  # fmt: skip
"""What the authors' script does and the recipe does not."""


@pytest.mark.parametrize("name", SAID)
def test_values_are_those_of_the_authors_script(name):
    tree = read_tree(recipes_dir() / f"{name}.yaml")
    assert {key: tree.get(*key.split(".")) for key in SAID[name]} == SAID[name]


@pytest.mark.parametrize("name", STATED)
def test_what_deviates_from_the_authors_script_is_stated(name):
    head = (recipes_dir() / f"{name}.yaml").read_text(encoding="utf-8").partition("\nmethod:")[0]
    assert STATED[name] in head.replace("\n# ", " ").partition("Deviations: ")[2]


def test_a_long_prompt_is_not_cut_as_the_recipe_says():
    """300 tokens of a prompt, of which the authors' script keeps the last 256."""
    assert truncated(list(range(300)), [1, 2, 3], 512) == (list(range(300)), [1, 2, 3])
