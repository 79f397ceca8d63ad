"""What settings ask of the optimizer holds where a run goes on from a checkpoint, though the checkpoint's state has others."""

import json
import shutil

import pytest
import torch
from tiny import trainer
from transformers import TrainerCallback

import align
from align import RPOConfig, RPOTrainer


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A run of four steps, linear from 0.01 to 0."""
    folder = tmp_path_factory.mktemp("asked") / "run"
    align.run("dpo/tiny", [f"train.output_dir={folder}"])
    return folder


@pytest.fixture
def run(four, tmp_path):
    """It after two steps."""
    folder = shutil.copytree(four, tmp_path / "run")
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoint-4")
    return folder


def rates(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["learning_rate"] for line in lines if "learning_rate" in line]


def gone_on(folder, *words):
    found = align.run("dpo/tiny", [f"train.output_dir={folder}", *words], resume="auto", changed=True)
    return found.trainer.optimizer.param_groups


def test_another_learning_rate_is_used_from_the_next_step(run):
    gone_on(run, "train.learning_rate=0.001")
    assert rates(run) == pytest.approx([0.01, 0.0075, 0.0005, 0.00025])


def test_another_schedule_begins_with_the_next_step(run):
    gone_on(run, "train.lr_scheduler_type=constant")
    assert rates(run) == pytest.approx([0.01, 0.0075, 0.01, 0.01])


def test_a_longer_run_takes_no_step_at_the_end_of_the_shorter(four, tmp_path):
    folder = shutil.copytree(four, tmp_path / "run")
    gone_on(folder, "train.max_steps=8")
    assert rates(folder) == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0.005, 0.00375, 0.0025, 0.00125])


def test_decay_and_moments_are_those_that_are_asked_for(run):
    groups = gone_on(run, "train.weight_decay=0.25", "train.adam_beta1=0.5")
    assert 0.25 in {group["weight_decay"] for group in groups} <= {0.0, 0.25}  # none on norms and biases
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.999)}


def test_the_rate_of_a_value_head_too(tmp_path):
    words = [f"train.output_dir={tmp_path / 'run'}", "train.save_steps=1"]
    align.run("supervised/awr-tiny", [*words, "train.max_steps=1"])
    done = align.run("supervised/awr-tiny", [*words, "train.value_learning_rate=0.5"], resume="auto", changed=True)
    assert [group["lr"] for group in done.trainer.values.optimizer.param_groups] == [0.5]


class Rates(TrainerCallback):
    """What the optimizer steps with."""

    def __init__(self):
        self.used = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **_):
        self.used.append(optimizer.param_groups[0]["lr"])


def test_from_python_another_setting_is_named(tmp_path, caplog):
    rates = Rates()

    def trained(steps, resume=None, **settings):
        saved = {"max_steps": steps, "save_strategy": "steps", "save_steps": 1}
        trainer(RPOTrainer, RPOConfig, tmp_path, callbacks=[rates], **saved, **settings).train(resume)

    torch.set_num_threads(1)
    trained(2)
    trained(3, resume=True)
    assert "another setting" not in caplog.text
    trained(4, resume=True, beta=0.7)
    assert rates.used == pytest.approx([0.01, 0.005, 0.01 / 3, 0.0025])
    assert "goes on with another setting: train.beta: 0.3 -> 0.7" in caplog.text
