"""How cost grows: with sequence length (to 8k), with the batch, and with the number of rows (to a million).

On a tiny random Llama, so that lengths matter and width does not. Memory for backward is counted tensor by tensor and
does not depend on the machine. Rows are chats of 60 words in a file that a run with `data.streaming` reads to the end of its first step,
from the start of the interpreter: once where nothing is kept of them, and once more.

Run (about 10 minutes on two cores): python scripts/bench/speed/growth.py scripts/bench/results/growth.json
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import mib
from contestants import Contestant, batch_of
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from align.scoring.memory import saved_bytes

NAMES = ("trl_best_bf16", "ours_padded", "ours", "ours_checkpointing")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 2, 4, 8, 16, 32)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
RUNS = ("first run", "second run")
SIDES = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
ANSWER = 64


def tiny(dtype: torch.dtype) -> LlamaForCausalLM:
    """Two layers, 64 wide, for up to 16k positions."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16384,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def point(contestant: Contestant, pairs: list[tuple[int, int, int]]) -> dict[str, float]:
    """Median seconds of three steps, and MiB kept for backward."""
    batch = batch_of(pairs, vocabulary=990)
    kept = saved_bytes(lambda: contestant.trainer.compute_loss(contestant.model.train(), dict(batch)), contestant.model)
    if hasattr(contestant.trainer, "sums"):
        contestant.trainer.sums.take("train")
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        contestant.step(batch)
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[1:]), "kept_mib": kept / 2**20}


def written(count: int, path: Path) -> None:
    """So many chats, of words of one or two syllables."""
    words = [
        first + second
        for first in ("ba", "co", "di", "fu", "lo", "me", "ni", "to", "ve", "ze")
        for second in ("", "ra", "sin", "tel")
    ]
    drawn = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            sides = {
                name: [{"role": role, "content": " ".join(drawn.choices(words, k=20))}] for name, role in SIDES.items()
            }
            file.write(json.dumps(sides) + "\n")


def started(path: Path) -> None:
    """Read the rows of a file, take one step, and print seconds of this process and the most memory of its own, in MiB."""
    from align import run  # noqa: PLC0415 - the children's alone, and timed

    most = 0.0

    def watch() -> None:
        nonlocal most
        while True:
            most = max(most, mib("RssAnon"))
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    began = psutil.Process().create_time()
    run(
        "dpo/tiny",
        [f"data.train.path={path}", "data.eval={}", "data.streaming=true", f"train.output_dir={path.parent / 'run'}", "train.max_steps=1"],
        overwrite=True,
    )  # fmt: skip
    print(json.dumps({"cpu_seconds": time.process_time(), "seconds": time.time() - began, "own_mib": most}))


def first_steps(count: int) -> dict[str, dict[str, float]]:
    """What a first and a second run take to the end of their first step, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        written(count, path)
        command = [sys.executable, __file__, "--rows", str(path)]
        environment = os.environ | {"ALIGNKIT_CACHE": folder, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        said = [
            subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout for _ in RUNS
        ]
    return {name: json.loads(one.splitlines()[-1]) for name, one in zip(RUNS, said, strict=True)}


def picture(results: dict, path: Path) -> None:
    """Time and kept memory against length and batch; memory against rows."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 5, figsize=(18, 3.6))
    for column, (key, field) in enumerate([("length", "seconds"), ("length", "kept_mib"), ("batch", "seconds")]):
        for name in NAMES:
            found = results[key][name]
            axes[column].plot(
                [int(x) for x in found], [row[field] for row in found.values()], marker="o", ms=3, label=name
            )
        axes[column].set(
            xscale="log", yscale="log", xlabel={"length": "tokens of a row (2 pairs)", "batch": "pairs (128:64)"}[key]
        )
        axes[column].set_ylabel({"seconds": "seconds per step", "kept_mib": "MiB kept for backward"}[field])
        axes[column].set_xticks(ticks := [int(x) for x in found], [str(x) for x in ticks], fontsize=8)
        axes[column].minorticks_off()
    axes[0].legend(frameon=False, fontsize=7)
    found = results["rows"]
    for name, colour in zip(RUNS, ("black", "#1f6feb"), strict=True):
        for panel, field in ((axes[3], "cpu_seconds"), (axes[4], "own_mib")):
            panel.plot(
                list(map(int, found)),
                [row[name][field] for row in found.values()],
                marker="o",
                ms=3,
                color=colour,
                label=name,
            )
    axes[3].set(xscale="log", yscale="log", xlabel="rows", ylabel="CPU seconds to the end of the first step")
    axes[4].set(xscale="log", xlabel="rows", ylabel="MiB of own memory, at most", ylim=(0, None))
    axes[3].legend(frameon=False, fontsize=7)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        started(options.rows)
        return
    contestants = [Contestant(name, tiny, lora_r=8) for name in NAMES]
    for contestant in contestants:
        contestant.step(batch_of([(16, 8, 8)] * 2, vocabulary=990))
    results: dict[str, Any] = {
        "what": f"tiny Llama (2 layers, 64 wide), bf16 autocast; answers of {ANSWER} tokens; medians of three steps",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft", "datasets")},
        "length": {c.name: {n: point(c, [(n - ANSWER, ANSWER, ANSWER)] * 2) for n in LENGTHS} for c in contestants},
        "batch": {c.name: {n: point(c, [(128, 64, 64)] * n) for n in BATCHES} for c in contestants},
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")  # what follows is not timed, and takes longest
    for count in ROWS:
        results.setdefault("rows", {})[count] = first_steps(count)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    picture(json.loads(options.out.read_text()), options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
