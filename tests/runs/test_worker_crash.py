"""A data-loading worker that dies ends the run; the checkpoint before it is whole, and goes on."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from datasets import concatenate_datasets
from transformers import TrainerCallback

from align import DPOConfig, DPOTrainer
from align.runs.checkpoints import newest_checkpoint


class KillWorker(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 3:
            (worker,) = multiprocessing.active_children()
            worker.kill()


def trainer(folder, *callbacks):
    data = concatenate_datasets([tiny.pairs()] * 4)
    return tiny.trainer(
        DPOTrainer, DPOConfig, folder, data=data, max_steps=8, save_strategy="steps", save_steps=2,
        dataloader_num_workers=1, callbacks=list(callbacks),
    )  # fmt: skip


@pytest.mark.slow
def test_a_worker_that_dies_loses_nothing_but_the_steps_since_the_last_save(tmp_path):
    # a process of its own: PyTorch raises from a signal handler, wherever the process happens to be
    code = "import sys, pathlib, test_worker_crash as t; t.trainer(pathlib.Path(sys.argv[1]), t.KillWorker()).train()"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "broken")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    # whichever PyTorch meets first
    assert "DataLoader worker" in ended.stderr or "ConnectionResetError" in ended.stderr
    # batches that were ready are still learnt from
    assert newest_checkpoint(tmp_path / "broken").name in ("checkpoint-2", "checkpoint-4", "checkpoint-6")
    whole, again = trainer(tmp_path / "whole"), trainer(tmp_path / "broken")
    whole.train()
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
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
