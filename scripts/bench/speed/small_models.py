"""Packed rows against padded ones where packing has least to win: very small models with many short pairs in a batch.

One thread, bf16 autocast, LoRA r=8, cached reference; the two take turns in one process, and ratios of CPU seconds are of the
same round. For each point also how many positions either computes.

Run (about ten minutes): python scripts/bench/speed/small_models.py scripts/bench/results/small_models.json
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from contestants import Contestant, batch_of
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from align.scoring.plan import make_plan

NAMES = {"padded": "ours_padded", "on": "ours"}
WIDTHS = (64, 128, 256, 512)
ROUNDS = 5


def mixed(count: int, prompt: int, answer: int) -> list[tuple[int, int, int]]:
    """Pairs of lengths from half to one and a half of those given."""
    draw = random.Random(0)
    return [tuple(draw.randint(n // 2, n + n // 2) for n in (prompt, answer, answer)) for _ in range(count)]  # type: ignore[misc]


SHAPES = {
    "32 pairs of 128:64": [(128, 64, 64)] * 32,
    "32 mixed pairs of 128:64": mixed(32, 128, 64),
    "32 mixed pairs of 16:16": mixed(32, 16, 16),
    "8 mixed pairs of 16:64": mixed(8, 16, 64),
    "8 mixed pairs of 256:64": mixed(8, 256, 64),
}


def model(width: int, dtype: torch.dtype) -> LlamaForCausalLM:
    """Two layers of this width."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=width // 16 if width < 256 else width // 64, num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def point(contestants: dict[str, Contestant], pairs: list[tuple[int, int, int]]) -> dict[str, Any]:
    """Ratios to padded rows, and what packing saves and costs."""
    batch = batch_of(pairs, vocabulary=990)
    plan = make_plan(batch["input_ids"], batch["attention_mask"], batch["completion_mask"].bool())
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(ROUNDS + 1):
        for name in list(contestants) if turn % 2 else reversed(contestants):
            began = time.process_time()
            contestants[name].step(batch)
            seconds[name].append(time.process_time() - began)
    timed = {name: values[1:] for name, values in seconds.items()}  # the first packed batch is scored both ways
    ratios = {n: [a / b for a, b in zip(s, timed["padded"], strict=True)] for n, s in timed.items() if n != "padded"}
    return {
        "cpu_seconds": timed,
        "times_padded": {n: [statistics.median(r), min(r), max(r)] for n, r in ratios.items()},
        "positions": {"padded": batch["input_ids"].numel(), "packed": plan.input_ids.numel()},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "rows": [],
    }
    for width in WIDTHS:
        made = {n: Contestant(NAMES[n], partial(model, width), lora_r=8) for n in NAMES}
        for contestant in made.values():
            contestant.step(batch_of([(16, 8, 8)] * 2, vocabulary=990))
        for shape, pairs in SHAPES.items():
            row = {"width": width, "shape": shape, **point(made, pairs)}
            record["rows"].append(row)
            print(json.dumps({k: v for k, v in row.items() if k != "cpu_seconds"}), flush=True)
            asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
