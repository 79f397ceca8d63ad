"""Finished runs to evaluate."""

import json
import shutil

import pytest
import tiny
import torch
import yaml

import align

LOUD = 0.05  # learning rate: two steps must move the tiny model visibly


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a recipe, its data, a finished run `rpo` and one with another eta, `dpo`."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("subjects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNKIT_CACHE", str(home / "cache"))
        rows = [json.dumps(row) + "\n" for row in tiny.pairs()]
        (home / "pairs.jsonl").write_text("".join(rows))
        (home / "one.jsonl").write_text(rows[0])
        pairs = {"path": str(home / "pairs.jsonl")}
        recipe = {
            "method": "rpo",
            "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
            "lora": {"r": 4, "target_modules": "all-linear"},
            "data": {"train": pairs, "eval": {"test": dict(pairs)}},
            "train": {
                "output_dir": "rpo", "beta": 0.3, "eta": 0.2, "learning_rate": LOUD, "max_steps": 2,
                "per_device_train_batch_size": 4, "max_length": 128, "use_cpu": True, "bf16": False, "logging_steps": 1,
                "report_to": "none", "gradient_checkpointing": False, "disable_tqdm": True, "save_strategy": "no",
            },
            "eval": {"generate": {"prompts": 3, "max_new_tokens": 8, "seed": 1}, "gold_reward": "positive_sentiment"},
        }  # fmt: skip
        (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        align.run(home / "recipe.yaml", [f"train.output_dir={home / 'rpo'}"])
        align.run(home / "recipe.yaml", ["train.eta=0.0", f"train.output_dir={home / 'dpo'}"])
        yield home


@pytest.fixture
def run(home, tmp_path):
    """A copy of the finished run, to be tampered with."""
    return shutil.copytree(home / "rpo", tmp_path / "rpo")
