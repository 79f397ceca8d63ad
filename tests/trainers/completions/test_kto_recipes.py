"""KTO from a recipe: TRL's own trainer on the same rows, resumed, and evaluated on pairs and on labels."""

import json

import pytest
import tiny
from torch.testing import assert_close
from trl import KTOConfig as TRLKTOConfig
from trl import KTOTrainer as TRLKTOTrainer

import align
from align.building import build_trainer
from align.data import load_data
from align.models.loading import load_model, load_tokenizer
from align.recipe.loading import load_recipe
from eval.__main__ import main as evaluate
from eval.evaluate import load_held_out

AS_TRL = ["shuffle_rows=false", "class_weights=given", "gradient_accumulation_steps=1", "per_device_train_batch_size=4"]


def recipe(folder, *settings):
    return load_recipe("kto/tiny", [f"train.{s}" for s in (f"output_dir={folder}", "save_strategy='no'", *settings)])


def test_a_recipe_trains_as_trl_does(tmp_path):
    """Batches of four, one a step, of the rows as they lie; both begin with the same adapter."""
    ours = recipe(tmp_path / "ours", *AS_TRL, "max_steps=5", "desirable_weight=0.75")
    rows = load_data(ours.data, rows=ours.rows).train
    mine, reference = build_trainer(ours, rows, {})
    held = ("beta", "learning_rate", "per_device_train_batch_size", "max_steps", "desirable_weight", "use_cpu", "bf16", "logging_steps", "seed", "gradient_checkpointing", "report_to", "save_strategy")  # fmt: skip
    args = TRLKTOConfig(output_dir=str(tmp_path / "theirs"), **{name: getattr(ours.train, name) for name in held})
    theirs = TRLKTOTrainer(
        model=load_model(ours.model), args=args, train_dataset=rows, processing_class=load_tokenizer(ours.model),
        peft_config=ours.lora,
    )  # fmt: skip
    begun = {name: weight.clone() for name, weight in mine.model.state_dict().items()}
    theirs.model.load_state_dict(begun)
    mine.train()
    theirs.train()
    assert tiny.losses(mine) == pytest.approx(tiny.losses(theirs), rel=2e-6, abs=1e-6)
    assert len(set(tiny.losses(mine))) == 5
    for name, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(mine)[name], weight, rtol=1e-4, atol=1e-6)
    assert reference["kind"] == "base"


def test_sets_are_read_for_training_and_for_ranking():
    made = recipe("runs/x")
    data = load_data(made.data, rows=made.rows)
    assert sum(data.train["label"]) == 8
    assert len(data.train) == 14
    assert len(data.eval["pairs"]) == 20
    held = load_held_out(made)
    assert (len(held["pairs"]), "chosen" in held["pairs"].column_names) == (10, True)
    assert "label" in held["labels"].column_names


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits_and_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train.eval_strategy=steps", "train.eval_steps=2"]
    align.run("kto/tiny", [*words, "train.output_dir=whole"])
    align.run("kto/tiny", [*words, "train.output_dir=cut"])
    for name in ("checkpoint-4", "adapter"):
        (tmp_path / "cut" / name).rename(tmp_path / f"gone-{name}")
    again = align.run("kto/tiny", [*words, "train.output_dir=cut"], resume="auto")
    assert again.trainer.state.global_step == 4
    weights = [(tmp_path / run / "adapter" / "adapter_model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert evaluate(["whole", "-o", "page"]) == 0
    read = json.loads((tmp_path / "page" / "report.json").read_text())
    found = read["estimates"]
    assert {
        "pairs/ranking_accuracy/implicit_reward",
        "labels/told_apart/log_ratio",
        "labels/log_ratio/desirable",
    } <= set(found)
    assert not [name for name in found if "calibration" in name]  # σ of its margin is no probability that KTO fits
    assert "Held-out labels: by its log-ratio a desirable answer" in read["verdict"]
    assert "Held-out labels" in (tmp_path / "page" / "report.html").read_text()
    lines = [json.loads(line) for line in (tmp_path / "page" / "scores.jsonl").read_text().splitlines()]
    assert sum("label" in line for line in lines) == 14
