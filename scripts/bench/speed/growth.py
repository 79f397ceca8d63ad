"""How cost grows: with sequence length (to 8k), with the batch, and with the number of rows (to a million).

On a tiny random Llama, so that lengths matter and width does not. Memory for backward is counted tensor by tensor and
does not depend on the machine; rows are streamed through tokenization, collation and packing, without a model.

Run (about 15 minutes on two cores): python scripts/bench/speed/growth.py scripts/bench/results/growth.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from contestants import Contestant, batch_of
from datasets import IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from align.scoring.memory import saved_bytes
from align.scoring.plan import make_plan

NAMES = ("trl_best_bf16", "ours_padded", "ours", "ours_checkpointing")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 2, 4, 8, 16, 32)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
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


def rows(count: int) -> Iterator[dict[str, str]]:
    """Short pairs, made as they are read."""
    for i in range(count):
        yield {"prompt": f"What is {i} plus {i % 7}?", "chosen": f" It is {i + i % 7}.", "rejected": f" {i}, I think."}


def streamed(count: int) -> dict[str, float]:
    """Seconds and growth of resident MiB from tokenizing, collating and packing that many rows, eight at a time.

    In a process of its own: one that has trained before has memory to spare, which would hide the growth.
    """
    trainer: Any = Contestant("ours", tiny, lora_r=8).trainer
    process = psutil.Process()
    data = IterableDataset.from_generator(rows, gen_kwargs={"count": count})
    data = trainer._prepare_dataset(data, trainer.processing_class, trainer.args, "train")
    held: list[dict[str, Any]] = []
    before = peak = process.memory_info().rss
    began = time.perf_counter()
    for number, row in enumerate(data):
        held.append(row)
        if len(held) == 8:
            batch = trainer.data_collator(held)
            make_plan(batch["input_ids"], batch["attention_mask"], batch["completion_mask"].bool())
            held.clear()
        if number % 1000 == 0:
            peak = max(peak, process.memory_info().rss)
    return {"seconds": time.perf_counter() - began, "grown_mib": (peak - before) / 2**20}


def picture(results: dict, path: Path) -> None:
    """Time and kept memory against length and batch; memory against rows."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6))
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
    axes[3].plot([int(x) for x in found], [row["grown_mib"] for row in found.values()], marker="o", ms=3, color="black")
    axes[3].set(xscale="log", xlabel="rows streamed", ylabel="MiB of resident memory gained", ylim=(0, 100))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    if options.rows:
        print(json.dumps(streamed(options.rows)))
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
        said = subprocess.run(
            [sys.executable, __file__, "--rows", str(count)], capture_output=True, text=True, check=True
        )
        results.setdefault("rows", {})[count] = json.loads(said.stdout.splitlines()[-1])
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    picture(json.loads(options.out.read_text()), options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
