"""A recipe that is right, and what loading a broken one says. Shared by the recipe tests."""

import pytest

from align.recipe.loading import RecipeError, load_recipe

GOOD = """\
method: rpo
model: {model_name_or_path: tiny-random, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data:
  train: {path: ./pairs.jsonl}
train:
  output_dir: runs/x
  beta: 0.3
  learning_rate: 5e-7
  use_cpu: true
  bf16: false
"""


def load(folder, text, *overrides, name="r.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return load_recipe(folder / name, overrides)


def problems(folder, text, *overrides):
    with pytest.raises(RecipeError) as caught:
        load(folder, text, *overrides)
    return str(caught.value).splitlines()
