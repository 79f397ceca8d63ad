"""Runs in processes of their own: several under torchrun, and one that is killed and resumed."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from align.runs.directory import METRICS_FILE, read_metrics

ROOT = Path(__file__).parents[3]
WORKERS = Path(__file__).parent
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# Shuffled data, accumulation, LoRA dropout, and a logging window that a checkpoint cuts in two.
OVERRIDES = (
    "train.max_steps=60", "train.save_steps=12", "train.logging_steps=2", "train.gradient_accumulation_steps=2",
    "lora.lora_dropout=0.1", "train.disable_dropout=false", "train.seed=7", "train.disable_tqdm=true",
)  # fmt: skip

TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")


def torchrun(count, *words, **env):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    return subprocess.run(
        [*command, *map(str, words)], env=ENV | env, capture_output=True, text=True, timeout=300, check=False
    )


@cache
def commands():
    """Forks for this process of the tests, as long as it lives."""
    folder = tempfile.mkdtemp(prefix="alignkit-forks-")
    made = import_module("forks").Commands(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(made.close)
    return made


def finished(count, *words):
    """A group of processes, without torchrun's own."""
    code, said, *_ = commands().run(*words, ranks=count)
    assert code == 0, said[-3000:]


def records(run: Path):
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(run / METRICS_FILE)]
