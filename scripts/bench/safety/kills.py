"""Random SIGKILLs over DPO, RPO, f-DPO, GRPO and RLOO runs: do the weights come out as if nothing had happened?

A run with a tiny random model saves every fifth step; it is killed at random moments, resumed with `--resume auto`, and
killed again, until its share of the kills is used up. Then it may finish. Checkpoints take about as long as the steps
between them, so that many kills fall into one.

Run (about 10 minutes on two cores): python scripts/bench/safety/kills.py scripts/bench/results/kills.json
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from align.runs.checkpoints import MANIFEST

METHODS = ("dpo", "rpo", "fdpo", "grpo", "rloo")
KILLS = 40
STEPS, SAVE = 150, 5
RECIPE = (
    f"train.max_steps={STEPS}", f"train.save_steps={SAVE}", "train.save_total_limit=2", "train.logging_steps=3",
    "train.gradient_accumulation_steps=2", "lora.lora_dropout=0.1", "train.disable_dropout=false", "train.disable_tqdm=true",
    "train.eval_strategy='no'",
)  # fmt: skip


def child(method: str, run: Path) -> None:
    """Train, or go on."""
    if method in ("dpo", "rpo", "fdpo"):
        import align  # noqa: PLC0415 - children only

        align.run(f"{method}/tiny", [*RECIPE, f"train.output_dir={run}"], resume="auto")
        return
    sys.path.insert(0, str(Path(__file__).parents[3] / "tests" / "helpers"))
    from groups import group_trainer  # noqa: PLC0415

    from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # noqa: PLC0415
    from align.runs.checkpoints import newest_checkpoint  # noqa: PLC0415

    cls, config = (GRPOTrainer, GRPOConfig) if method == "grpo" else (RLOOTrainer, RLOOConfig)
    trainer = group_trainer(
        cls, config, run, max_steps=STEPS, save_strategy="steps", save_steps=SAVE, save_total_limit=2,
        steps_per_generation=2, num_iterations=2, per_device_train_batch_size=4,
    )  # fmt: skip
    last = newest_checkpoint(run)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.save_model(str(run / "adapter"))


def started(method: str, run: Path) -> subprocess.Popen[bytes]:
    """A process that trains."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--child", method, str(run)]
    return subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def steps_saved(run: Path) -> int:
    """Of the newest sealed checkpoint."""
    return max((int(p.parent.name.split("-")[1]) for p in run.glob(f"checkpoint-*/{MANIFEST}")), default=0)


def killed(method: str, run: Path, kills: int, dice: random.Random) -> list[dict[str, Any]]:
    """Kill a run so many times, then let it finish."""
    record = []
    while len(record) < kills:
        before = steps_saved(run)
        process = started(method, run)
        folders = set(run.glob("checkpoint-*"))
        while process.poll() is None and set(run.glob("checkpoint-*")) <= folders:
            time.sleep(0.001)  # until it saves for the first time
        time.sleep(dice.uniform(0, 1.2))
        if process.poll() is not None:
            raise SystemExit(f"{method}: over after {len(record)} kills: {process.communicate()[1][-2000:].decode()}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        half = [p.name for p in run.glob("checkpoint-*") if not (p / MANIFEST).is_file()]
        record.append({"from_step": before, "saved_step": steps_saved(run), "within_a_checkpoint": bool(half)})
        print(method, record[-1], flush=True)
    process = started(method, run)
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"{method}: {said[-2000:].decode()}")
    return record


def main() -> None:
    """Uninterrupted and killed, method by method, and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    from safetensors.torch import load_file  # noqa: PLC0415 - not in children

    dice = random.Random(0)
    results: dict[str, Any] = {
        "what": f"{KILLS} SIGKILLs at random moments; {STEPS} steps, a checkpoint every {SAVE}, tiny random model, LoRA",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "methods": {},
    }
    for method in METHODS:
        folder = Path(tempfile.mkdtemp())
        process = started(method, folder / "whole")
        said = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"{method}: {said[-2000:].decode()}")
        kills = killed(method, folder / "killed", KILLS // len(METHODS), dice)
        ours, theirs = (
            load_file(folder / run / "adapter" / "adapter_model.safetensors") for run in ("killed", "whole")
        )
        results["methods"][method] = {
            "kills": len(kills),
            "within_a_checkpoint": sum(kill["within_a_checkpoint"] for kill in kills),
            "weights_equal_to_the_bit": all(bool((ours[name] == theirs[name]).all()) for name in theirs),
            "every_kill": kills,
        }
        print(method, {k: v for k, v in results["methods"][method].items() if k != "every_kill"}, flush=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
