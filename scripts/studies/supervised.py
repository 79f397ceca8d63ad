"""Asks whether DFT and ASFT generalise better than SFT, and whether PoFT bears wrong solutions better, on easy word problems.

Run: python scripts/studies/supervised.py DATA_FOLDER OUT_FOLDER [--seeds N]. What is there is not done again.
Then: python scripts/studies/supervised_report.py OUT_FOLDER scripts/bench/results/supervised

SmolLM2-135M-Instruct, in float32, learns to write the equation of a one-step problem of MAWPS with whole numbers up to 100, the first
line of its worked solution, in 40 steps of 8 rows, LoRA on the last ten layers. Answers are greedy, to other problems of MAWPS, and to
one-step problems of SVAMP, which varies elementary problems so that wording alone does not solve them. `given` is the mean probability
of the given equation.

All but `cold` go on from SFT on 64 other rows, 24 steps, so that they know what an answer looks like; `cold` begins as the model comes.

- `noisy`: of 40% of the rows, drawn for each seed, the equation is that of another row with another answer.
- `poft` weighs a row by how likely aligned models find it: here the one that training begins with. The paper has three larger ones.
- `asft` is anchored to what training begins with.
- SFT and DFT have the learning rate, of two, that gives clean equations of 36 other problems the higher probability, seed 0 on clean
  rows. ASFT has that of DFT, on which it builds, and PoFT that of SFT. Rows and steps are equal, and their order within a seed.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from methods import LORA
from methods import MODEL as IN_16_BITS

import align
from align.files import write_rows, write_text
from align.models.loading import load_tokenizer
from align.recipe.loading import load_recipe
from align.rewards import Correctness
from align.sampling.ask import Asking, ask
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of, reference_of
from align.scoring.completions import completion_ids, completion_logps
from align.scoring.poft_column import COLUMN, mean_logps

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "quality"))
from sentiment_frontier import read

MODEL = IN_16_BITS | {"dtype": "float32"}
HELD_OUT, VALIDATION, TRUSTED, LARGEST = 96, 36, 64, 100
STEPS, WARM_STEPS, EACH, TOKENS, BATCH, WRONG = 40, 24, 8, 16, 192, 0.4
RATES, BUILDS_ON = (3e-4, 1e-3), {"asft": "dft", "poft": "sft"}
CONDITIONS = [
    ("cold", "sft"),
    ("cold", "dft"),
    ("clean", "sft"),
    ("clean", "dft"),
    ("clean", "asft"),
    ("noisy", "sft"),
    ("noisy", "dft"),
    ("noisy", "poft"),
]
SETS = {"same": "other problems of MAWPS", "other": "problems of SVAMP"}
AGAINST, WARM = "sft", "warm"


def problems(data: Path) -> dict[str, list[dict[str, Any]]]:
    """One-step problems by their use; `same` and `other` are held out."""
    rows = [row for row in read(data / "math_easy" / "train.jsonl.gz") if row["n_ops"] == 1]
    rows = [row for row in rows if row["max_operand"] <= LARGEST and "." not in equations_of([row])[0]]
    random.Random(0).shuffle(rows)
    mawps, svamp = ([row for row in rows if row["source"] == source] for source in ("mawps", "svamp"))
    ends = np.cumsum([0, HELD_OUT, VALIDATION, TRUSTED, STEPS * EACH])
    parts = [mawps[begin:end] for begin, end in pairwise(ends)]
    return dict(zip(("same", "validation", "trusted", "train"), parts, strict=True)) | {"other": svamp[:HELD_OUT]}


def learnt(rows: list[dict[str, Any]], equations: list[str]) -> list[dict[str, Any]]:
    """Problems with equations, as training reads them."""
    return [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": equation}]}
        for row, equation in zip(rows, equations, strict=True)
    ]


def equations_of(rows: list[dict[str, Any]]) -> list[str]:
    """The first line of each worked solution."""
    return [row["solution"].split("\n")[0] for row in rows]


def spoilt(rows: list[dict[str, Any]], seed: int) -> list[str]:
    """The equations, of which a share is that of another row with another answer."""
    drawn, equations = random.Random(seed), equations_of(rows)
    found = list(equations)
    for place in drawn.sample(range(len(rows)), round(WRONG * len(rows))):
        found[place] = equations[
            drawn.choice([k for k, row in enumerate(rows) if row["answer"] != rows[place]["answer"]])
        ]
    return found


def recipe_of(method: str, rows: Path, start: Path | None = None) -> dict[str, Any]:
    """The recipe of a method, without seed, learning rate and folder; `start` is the run that it goes on from, and its reference."""
    train = {
        "output_dir": "runs/study", "lr_scheduler_type": "cosine", "warmup_steps": 4, "max_steps": STEPS, "per_device_train_batch_size": EACH,
        "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "save_strategy": "no", "logging_steps": 5, "report_to": "none",
    }  # fmt: skip
    begin: dict[str, Any] = {"lora": LORA} if start is None else {"start": {"adapter": str(start)}}
    if start is not None and method == "asft":
        begin["ref"] = {"kind": "adapter", "path": str(start)}
    return {"method": method, "model": MODEL, **begin, "data": {"train": {"path": str(rows)}}, "train": train}


def trained(kind: str, method: str, rows: Path, rate: float, seed: int, out: Path) -> Policy:
    """A policy; what is there is not trained again."""
    run = out / "runs" / f"{kind}-{method}-{rate:g}-seed-{seed}"
    path = out / f"{kind}-{method}.yaml"
    if not (run / "adapter").is_dir():
        write_text(
            path, yaml.safe_dump(recipe_of(method, rows, None if kind == "cold" else out / WARM), sort_keys=False)
        )
        words = [f"train.output_dir={run}", f"train.learning_rate={rate}", f"train.seed={seed}"]
        align.run(path, words, overwrite=True)
    return policy_of(str(run))


def warm(sets: dict[str, list[dict[str, Any]]], out: Path) -> Policy:
    """What all but `cold` runs go on from."""
    path, run = out / "trusted.jsonl", out / WARM
    if not (run / "adapter").is_dir():
        write_rows(learnt(sets["trusted"], equations_of(sets["trusted"])), path, replace=True)
        recipe = out / "warm.yaml"
        write_text(recipe, yaml.safe_dump(recipe_of("sft", path), sort_keys=False))
        words = [f"train.output_dir={run}", f"train.learning_rate={RATES[-1]}", "train.seed=0"]
        align.run(recipe, [*words, f"train.max_steps={WARM_STEPS}"], overwrite=True)
    return policy_of(str(run))


def given(policy: Policy, rows: list[dict[str, Any]]) -> list[float]:
    """The probability of the equation that each problem is given with, its end included."""
    tokenizer: Any = load_tokenizer(policy.settings)
    encoded = [
        completion_ids(tokenizer, one["prompt"], one["completion"], None) for one in learnt(rows, equations_of(rows))
    ]
    sequences = [(ids[:begin], ids[begin:]) for ids, begin in encoded]
    with policy.load()() as model:
        found = completion_logps(model, sequences, pad_token_id=tokenizer.pad_token_id, batch_size=EACH)
    return [float(row.double().sum().exp()) for row in found]


def record(policy: Policy, sets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """By held-out set: answers, which are right, and the probability of the given equations."""
    rows = [row for name in SETS for row in sets[name]]
    asking = Asking([row["prompt"] for row in rows], Decoding(TOKENS, 0.0), 1, BATCH, None)
    texts = [one.text for (one,) in ask(load_tokenizer(policy.settings), policy.load(), asking, "policy", "policy")]
    right = Correctness()(texts, answer=[row["answer"] for row in rows])
    found = {"texts": texts, "accuracy": right, "given": given(policy, rows)}
    ends = list(accumulate((len(sets[name]) for name in SETS), initial=0))
    parts = zip(SETS, pairwise(ends), strict=True)
    return {name: {what: values[slice(*part)] for what, values in found.items()} for name, part in parts}


def rows_of(kind: str, method: str, seed: int, sets: dict[str, list[dict[str, Any]]], out: Path) -> Path:
    """The file that a condition learns from, which is written if it is not there."""
    noisy = kind == "noisy"
    path = out / (f"{'scored' if method == 'poft' else kind}-{seed}.jsonl" if noisy else "clean.jsonl")
    if not path.is_file():
        rows = learnt(sets["train"], spoilt(sets["train"], seed) if noisy else equations_of(sets["train"]))
        if method == "poft":
            policy = warm(sets, out)
            with policy.load()() as model:
                scores = mean_logps(model, load_tokenizer(policy.settings), rows, batch_size=EACH)
            rows = [row | {COLUMN: float(score)} for row, score in zip(rows, scores, strict=True)]
        write_rows(rows, path, replace=True)
    return path


def rate_of(kind: str, method: str, sets: dict[str, list[dict[str, Any]]], out: Path) -> float:
    """The learning rate of a method, or of the one that it builds on."""
    kind, method = "cold" if kind == "cold" else "clean", BUILDS_ON.get(method, method)
    path = out / f"rate-{kind}-{method}.json"
    if not path.is_file():
        rows = rows_of(kind, method, 0, sets, out)
        policies = {rate: trained(kind, method, rows, rate, 0, out) for rate in RATES}
        reached = {rate: float(np.mean(given(policy, sets["validation"]))) for rate, policy in policies.items()}
        write_text(path, json.dumps({"given": reached, "rate": max(RATES, key=reached.__getitem__)}))
        print(kind, method, reached, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))["rate"]


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    out = options.out.absolute()
    (out / "records").mkdir(parents=True, exist_ok=True)
    sets = problems(options.data)

    def keep(name: str, made: Callable[[], Policy]) -> None:
        path, began = out / "records" / f"{name}.json", time.process_time()
        if not path.is_file():
            told: dict[str, Any] = record(made(), sets) | {"cpu_seconds": round(time.process_time() - began)}
            write_text(path, json.dumps(told))
            print(
                name,
                {one: round(float(np.mean(told[one]["accuracy"])), 3) for one in SETS},
                told["cpu_seconds"],
                flush=True,
            )

    def condition(kind: str, method: str, seed: int) -> Policy:
        rate = rate_of(kind, method, sets, out)
        return trained(kind, method, rows_of(kind, method, seed, sets, out), rate, seed, out)

    keep(WARM, lambda: warm(sets, out))
    for seed in range(options.seeds):
        for kind, method in CONDITIONS:
            keep(f"{kind}-{method}-{seed}", partial(condition, kind, method, seed))
    keep("base", lambda: reference_of(load_recipe(out / "warm.yaml")))


if __name__ == "__main__":
    main()
