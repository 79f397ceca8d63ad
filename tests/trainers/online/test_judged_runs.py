"""Runs of online pairs: what the judge is belongs to what the run is, and evaluations sample answers."""

import json

import pytest
import torch
from stored_world import read_lines
from trl import ModelConfig

from align.errors import RunError
from align.judges.from_recipe import prepare_judge
from align.models.loading import load_model, load_tokenizer
from align.recipe.sections import JudgeConfig
from align.run_identity import judge_digest
from align.train import run
from eval.__main__ import main as evaluate


@pytest.fixture
def judge(tmp_path):
    settings = ModelConfig(model_name_or_path="tiny-random", dtype="float32")
    model, folder = load_model(settings), tmp_path / "judge"
    model.save_pretrained(folder)
    load_tokenizer(settings).save_pretrained(folder)
    return model, folder


def test_a_run_does_not_go_on_with_a_judge_of_other_weights(judge, tmp_path):
    model, folder = judge
    words = [f"judge={{kind: language_model, path: {folder}}}", f"train.output_dir={tmp_path / 'run'}"]
    run("online/tiny-online-dpo", [*words, "train.max_steps=2"])
    known = json.loads((tmp_path / "run" / "env.json").read_text())["identity"]["judge"]
    assert known is not None
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    model.save_pretrained(folder)
    with pytest.raises(RunError, match=rf"judge: {known[:12]} -> "):
        run("online/tiny-online-dpo", [*words, "train.max_steps=4"], resume="auto")


def test_a_judge_that_is_no_model_of_ours_has_no_digest():
    make = prepare_judge("judge", JudgeConfig("reward", reward="repetition"), ModelConfig(), [], None)
    assert judge_digest(make()) is None


def test_evaluations_in_and_after_training_sample_answers(tmp_path, capsys):
    folder = tmp_path / "run"
    words = [
        "data.eval={t: {path: recipes/data/tiny-instructions.jsonl}}",
        "train.eval_strategy=steps",
        "train.eval_steps=1",
    ]
    run("online/tiny-online-dpo", [*words, "train.max_steps=1", f"train.output_dir={folder}"])
    (told,) = [row for row in read_lines(folder / "metrics.jsonl") if "eval_t_loss" in row]
    assert told["eval_t_completions/mean_length"] > 0
    assert {"eval_t_kl", "eval_t_pairs/unscored", "eval_t_loss/sigmoid"} <= told.keys()
    settings = ["eval.generate={prompts: 4, max_new_tokens: 6}", "eval.gold_reward=repetition"]
    assert evaluate([str(folder), *settings, "-o", str(tmp_path / "report")]) == 0
    capsys.readouterr()
    estimates = json.loads((tmp_path / "report" / "report.json").read_text())["estimates"]
    assert estimates["gold_reward/policy"]["n"] == 4
