"""One pass over real pairs, end to end: tokenization, collation, reference, training and logging, ours against TRL.

The pairs are UltraFeedback's, as they are; `trl_best` and ours precompute the reference within the measured time.

Run (about 10 minutes on two cores): python scripts/bench/speed/epoch.py DATA_FOLDER scripts/bench/results/epoch.json
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from contestants import SETTINGS, SMOLLM2, _compact
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.models.loading import resolve_model_path

NAMES = ("trl_default", "trl_best", "trl_best_bf16", "ours")
PAIRS, PER_STEP, MAX_LENGTH, REPETITIONS = 8, 4, 512, 3


def epoch(name: str, data: Dataset, path: str) -> dict[str, float]:
    """Seconds from data to the last step, and the last loss."""
    setting = SETTINGS[name]
    os.environ["ALIGNKIT_CACHE"] = tempfile.mkdtemp()  # no reference values of an earlier run
    model = AutoModelForCausalLM.from_pretrained(path, dtype=setting.dtype)
    tokenizer = AutoTokenizer.from_pretrained(path)
    began = time.perf_counter()
    with _compact() if setting.compact_head else nullcontext():
        trainer = setting.trainer(
            model=model,
            args=setting.config(
                output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=True, report_to="none", max_length=MAX_LENGTH,
                per_device_train_batch_size=PER_STEP, num_train_epochs=1, seed=0, save_strategy="no", logging_steps=1,
                gradient_checkpointing=setting.checkpointing, disable_tqdm=True,
                precompute_ref_log_probs=setting.reference == "cached", **setting.extra,
            ),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )  # fmt: skip
        trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"seconds": time.perf_counter() - began, "last_loss": losses[-1]}


def main() -> None:
    """Alternate the contestants, three times over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    whole = load_dataset("json", data_files=str(options.data / "ultrafeedback_1k" / "train.jsonl.gz"), split="train")
    keep = [name for name in ("prompt", "chosen", "rejected") if name in whole.column_names]
    path = resolve_model_path(SMOLLM2)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for turn in range(REPETITIONS):
        rows = whole.select_columns(keep).shuffle(seed=turn).select(range(PAIRS))
        for name in NAMES if turn % 2 else reversed(NAMES):
            runs[name].append(epoch(name, rows, path))
            print(turn, name, runs[name][-1], flush=True)
    ratios = {
        name: sorted(a["seconds"] / b["seconds"] for a, b in zip(runs[name], runs["ours"], strict=True))
        for name in NAMES
    }
    results = {
        "what": f"one epoch over {PAIRS} random pairs of ultrafeedback_1k, {PER_STEP} per step, max_length {MAX_LENGTH}, "
        "SmolLM2-135M-Instruct, LoRA r=16, bf16 autocast; tokenization and reference pass included",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "runs": runs,
        "times_ours": {name: {"min": r[0], "median": r[len(r) // 2], "max": r[-1]} for name, r in ratios.items()},
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
