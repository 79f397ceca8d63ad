"""SmolLM2 on comparisons by people: twenty steps of a reward model and of a general preference model."""

import gzip
import json

import pytest
import smollm2
from datasets import Dataset
from peft import LoraConfig

from align.configs.preference_model import PreferenceModelConfig
from align.judges.scorers import check_matrix
from align.models.loading import load_tokenizer
from align.models.preference_model import load_preference_base, load_preference_model
from align.trainers.preference_model import PreferenceModelTrainer

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.slow,
    pytest.mark.usefixtures("all_threads"),
    smollm2.needed,
]


@pytest.mark.parametrize(("dimension", "tau", "rate"), [(1, 1.0, 1e-3), (4, 0.1, 3e-4)])
def test_the_loss_on_human_pairs_falls_in_twenty_steps(shared_data, tmp_path, dimension, tau, rate):
    with gzip.open(shared_data / "qa_feedback_human" / "train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    short = sorted(rows, key=lambda row: sum(len(str(row[side])) for side in ("prompt", "chosen", "rejected")))[:8]
    data = Dataset.from_list([{side: row[side] for side in ("prompt", "chosen", "rejected")} for row in short])
    args = PreferenceModelConfig(
        output_dir=str(tmp_path), dimension=dimension, tau=tau, max_steps=20, per_device_train_batch_size=2,
        learning_rate=rate, use_cpu=True, bf16=False, report_to="none", logging_steps=4, save_strategy="no",
        gradient_checkpointing=False, seed=0,
    )  # fmt: skip
    tokenizer = load_tokenizer(smollm2.CONFIG)
    trainer = PreferenceModelTrainer(
        load_preference_base(smollm2.CONFIG, dimension=dimension, seed=0),
        args,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    )
    trainer.train()
    records = [record for record in trainer.state.log_history if "loss" in record]  # one for each epoch of eight pairs
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]
    assert records[-1]["accuracy"] > records[0]["accuracy"]
    trainer.save_model(str(tmp_path / "saved"))
    judge = load_preference_model(tmp_path / "saved")
    row = data[0]
    answers = [side if isinstance(side, str) else side[-1]["content"] for side in (row["chosen"], row["rejected"])]
    wins = judge.prefer(row["prompt"], answers)
    check_matrix(wins, 2)
    assert wins[0, 1] > 0.5
