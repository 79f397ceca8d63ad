"""Recipes of papers say what the authors' scripts say, value by value; each value was read in the script."""

import pytest

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
    },
    "papers/fdpo-hh": {"train.beta": 0.3, "train.bf16": True, "model.dtype": "float32", "train.optim": "rmsprop"},
    "supervised/dft-math": {"model.model_name_or_path": "Qwen/Qwen2.5-Math-1.5B"},
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_values_are_those_of_the_authors_script(name):
    tree = read_tree(recipes_dir() / f"{name}.yaml")
    assert {key: tree.get(*key.split(".")) for key in SAID[name]} == SAID[name]
