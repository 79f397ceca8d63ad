"""Faults put into checkpoints and runs, and what was lost by them.

A run of eight steps with checkpoints at 2, 4 and 6 is copied, damaged in one way, and resumed to its end. It survives
if its weights are then those of the undamaged run to the bit; a fault that changes them is data lost.

Run (about 5 minutes on one core): python scripts/bench/safety/faults.py scripts/bench/results/faults.json
"""

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PrinterCallback, TrainerCallback

sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "helpers"))
import tiny

from align import DPOConfig, DPOTrainer
from align.errors import RunError

EACH = 4
FILES = (
    "adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
    "trainer_state.json", "training_args.bin", "tokenizer.json", "tokenizer_config.json", "alignkit.json",
)  # fmt: skip


def trainer(folder: Path, **kw: Any) -> Any:
    """Eight steps with shuffled data, accumulation and dropout."""
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8, "gradient_accumulation_steps": 2, "disable_dropout": False}  # fmt: skip
    made = tiny.trainer(DPOTrainer, DPOConfig, folder, lora={"lora_dropout": 0.1}, **settings | kw)
    made.remove_callback(PrinterCallback)
    return made


def flipped(path: Path, dice: random.Random) -> None:
    """One bit of one byte."""
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def cut(path: Path, dice: random.Random) -> None:
    """Ends somewhere before its end."""
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))])


def gone(path: Path, dice: random.Random) -> None:
    """No such file."""
    path.unlink()


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a full disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class At(TrainerCallback):
    """Does something at the end of a step."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        self.step, self.do = step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Once."""
        if state.global_step == self.step:
            self.do()


def interrupted(folder: Path, fault: str, dice: random.Random) -> str:
    """A run that meets a fault while it saves; returns what it said."""
    made = trainer(folder)
    with contextlib.ExitStack() as stack:
        if fault == "disk full":
            size = dice.randrange(100, 30_000)
            made.add_callback(At(5, lambda: stack.enter_context(small_files(size))))
        elif fault == "folder cannot be written":
            made.add_callback(At(5, lambda: (folder / "checkpoint-6").write_text("in the way")))
        elif fault == "clock set back":
            for past in (2, 4):
                made.add_callback(At(past + 1, lambda past=past: os.utime(folder / f"checkpoint-{past}", (2e9, 2e9))))
            made.args.save_total_limit = 1
        try:
            made.train()
        except RunError as error:
            return str(error).partition(";")[0]
    return "nothing to say"


def main() -> None:
    """Every fault, several times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    dice, base = random.Random(0), Path(tempfile.mkdtemp())
    trainer(base / "whole").train()
    wanted = load_file(base / "whole" / "checkpoint-8" / "adapter_model.safetensors")
    shutil.rmtree(base / "whole" / "checkpoint-8")
    counts: dict[str, dict[str, Any]] = {}

    def survive(what: str, folder: Path) -> None:
        entry = counts.setdefault(what, {"injected": 0, "survived": 0, "data_lost": 0})
        again = trainer(folder)
        entry["injected"] += 1
        again.train(resume_from_checkpoint=True)
        got = load_file(folder / "checkpoint-8" / "adapter_model.safetensors")
        equal = all(bool((got[name] == wanted[name]).all()) for name in wanted)
        entry["survived"] += equal
        entry["data_lost"] += not equal
        shutil.rmtree(folder)

    for damage in (flipped, cut, gone):
        for name in FILES:
            for _ in range(EACH):
                folder = base / f"damaged-{time.monotonic_ns()}"
                shutil.copytree(base / "whole", folder)
                damage(folder / "checkpoint-6" / name, dice)
                survive(f"{damage.__name__}: {name}", folder)
    for fault in ("disk full", "folder cannot be written", "clock set back"):
        for _ in range(EACH):
            folder = base / f"interrupted-{time.monotonic_ns()}"
            said = interrupted(folder, fault, dice)
            if (folder / "checkpoint-6").is_file():
                (folder / "checkpoint-6").unlink()
            shutil.rmtree(folder / "checkpoint-8", ignore_errors=True) if fault != "clock set back" else None
            survive(fault, folder)
            counts[fault]["said"] = said.replace(str(folder), "RUN")
    results = {
        "what": "faults in the newest of three checkpoints, or while one is written; then resumed to the end of the run",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "injected": sum(entry["injected"] for entry in counts.values()),
        "survived": sum(entry["survived"] for entry in counts.values()),
        "data_lost": sum(entry["data_lost"] for entry in counts.values()),
        "faults": counts,
    }
    out.write_text(json.dumps(results, indent=1) + "\n")
    print({key: results[key] for key in ("injected", "survived", "data_lost")})


if __name__ == "__main__":
    main()
