"""Does `alignkit check --deep` come true? Predicted time and peak memory against those of the run, on real pairs.

Prediction and run are processes of their own, over the same few pairs of ultrafeedback_1k for one epoch.

Run (about five minutes on two cores): python scripts/bench/speed/predict.py DATA_FOLDER scripts/bench/results/predict.json
"""

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

PAIRS = 16
SETTINGS = {
    "one pair a step": ["train.per_device_train_batch_size=1", "train.gradient_checkpointing=false"],
    "two pairs a step, checkpointing": ["train.per_device_train_batch_size=2", "train.gradient_checkpointing=true"],
}


def one(what: str, overrides: list[str]) -> dict[str, float]:
    """Predict or train, in this process."""
    from align import load_recipe, run  # noqa: PLC0415 - children only
    from align.commands.dry_run import predict  # noqa: PLC0415

    name = "rpo/smollm2-ultrafeedback"
    if what == "predict":
        return asdict(predict(load_recipe(name, overrides)))
    done = run(name, overrides)
    steps = done.trainer.state.global_step
    return {
        "steps": steps,
        "seconds_per_step": done.metrics["train_runtime"] / steps,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Predict, run and compare each setting."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--one", nargs="+")
    options = parser.parse_args()
    if options.one:
        options.out.write_text(json.dumps(one(options.one[0], options.one[1:])))
        return
    folder = Path(tempfile.mkdtemp())
    with gzip.open(options.data / "ultrafeedback_1k" / "train.jsonl.gz", "rt", encoding="utf-8") as rows:
        (folder / "pairs.jsonl").write_text("".join(line for line, _ in zip(rows, range(PAIRS), strict=False)))
    shared = [
        f"data={{train: {{path: {folder / 'pairs.jsonl'}}}}}", "train.max_steps=-1", "train.num_train_epochs=1",
        "train.global_batch_size=null", "train.gradient_accumulation_steps=1", "train.max_length=512", "train.use_cpu=true",
        "train.bf16=true", 'train.eval_strategy="no"', 'train.save_strategy="no"',
    ]  # fmt: skip
    results = {
        "what": f"rpo/smollm2-ultrafeedback over {PAIRS} pairs of ultrafeedback_1k, one epoch, max_length 512, bf16 autocast",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "settings": {},
    }
    for name, words in SETTINGS.items():
        found = {}
        for what in ("predict", "train"):
            out = folder / f"{what}.json"
            words_now = [*shared, *words, f"train.output_dir={tempfile.mkdtemp()}/run"]
            command = [sys.executable, __file__, str(options.data), str(out), "--one", what, *words_now]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found[what] = json.loads(out.read_text())
        found["predicted_over_happened"] = {
            key: found["predict"][key] / found["train"][key] for key in ("seconds_per_step", "peak_bytes")
        }
        results["settings"][name] = found
        print(name, found["predicted_over_happened"], flush=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
