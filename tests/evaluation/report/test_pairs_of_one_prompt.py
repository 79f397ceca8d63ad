"""Held-out pairs of one prompt are one item of a report."""

import json

import pytest
import yaml

from align.errors import RunError
from align.models.loading import resolve_model_path
from eval.evaluate import evaluate
from eval.subjects import load_subject

ANSWERS = [("a fine film", "a bad film"), ("a lovely film", "an awful film"), ("good", "not good at all, I think")]


def evaluated(folder, prompts):
    """The report on pairs of these prompts, of a model that was never trained."""
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt, (chosen, rejected) in zip(prompts, ANSWERS, strict=True)
    ]
    for name, kept in {
        "test": rows,
        "train": [dict.fromkeys(("prompt", "chosen"), "a word") | {"rejected": "two"}],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    recipe = {
        "method": "dpo",
        "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
        "data": {
            "train": {"path": str(folder / "train.jsonl")},
            "eval": {"test": {"path": str(folder / "test.jsonl")}},
        },
        "train": {"output_dir": "unused", "use_cpu": True, "bf16": False, "max_length": 64},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return evaluate(load_subject(resolve_model_path("tiny-random"), str(folder / "recipe.yaml")))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))


def test_they_count_once(tmp_path):
    found = evaluated(tmp_path, ["a film", "a play", "a film"]).estimates
    for name in ("ranking_accuracy/logp", "ref_ranking_accuracy/logp", "log_ratio/chosen", "logps/rejected"):
        assert found[f"test/{name}"].n == 2, name


def test_one_prompt_has_no_interval(tmp_path):
    with pytest.raises(
        RunError, match="test: an interval needs pairs of at least 2 different prompts, got 3 pairs of one"
    ):
        evaluated(tmp_path, ["a film"] * 3)


def test_nor_has_one_that_is_left_when_others_are_too_long(tmp_path):
    told = "1 of 3 pairs left out.*an interval needs pairs of at least 2 different prompts, got 2 pairs of one"
    with pytest.raises(RunError, match=told):
        evaluated(tmp_path, ["a film", "a film", "word " * 2000])
