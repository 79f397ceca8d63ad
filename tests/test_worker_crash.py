"""A data-loading worker that dies ends the run with its reason; the checkpoint before it is whole, and goes on."""

import os
import signal

import psutil
import pytest
import tiny
from transformers import TrainerCallback

from align import DPOConfig, DPOTrainer
from align.checkpoints import newest_checkpoint


class KillWorkers(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 3:
            for child in psutil.Process().children():
                if any("multiprocessing" in part or "pytest" in part for part in child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)


def trainer(folder, *callbacks):
    return tiny.trainer(
        DPOTrainer, DPOConfig, folder, max_steps=8, save_strategy="steps", save_steps=2, dataloader_num_workers=1,
        callbacks=list(callbacks),
    )  # fmt: skip


def test_a_worker_that_dies_loses_nothing_but_the_steps_since_the_last_save(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.train()
    broken = trainer(tmp_path / "broken", KillWorkers())
    with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed by signal|exited unexpectedly)"):
        broken.train()
    assert newest_checkpoint(tmp_path / "broken").name == "checkpoint-2"
    again = trainer(tmp_path / "broken")
    again.train(resume_from_checkpoint=True)
    for name, weight in tiny.weights(whole).items():
        assert (tiny.weights(again)[name] == weight).all(), name


@pytest.mark.parametrize("workers", [1, 2])
def test_the_order_of_the_data_does_not_depend_on_the_number_of_workers(tmp_path, workers):
    losses = []
    for count in (0, workers):
        made = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / str(count), max_steps=7, dataloader_num_workers=count)
        made.train()
        losses.append(tiny.losses(made))
    assert losses[0] == losses[1]
