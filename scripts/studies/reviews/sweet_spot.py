"""Asks which of many answers to reject: the worst, or the one two deviations below the mean (the sweet spot).

Run: python scripts/studies/reviews/sweet_spot.py DATA_FOLDER OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; what was
killed goes on. After every policy sweet_spot.json and sweet_spot.png are written anew.

Model, beginnings of reviews and classifiers are those of `methods.py`. There, of eight answers the sweet spot is the worst; here each
of 120 beginnings is continued 64 times. The weak classifier (the proxy) ranks the answers: the best is chosen in both conditions, and the
rejected one is the worst, or the one nearest to two deviations below the mean. DPO learns from the 120 pairs in 120 steps of 4, and
128 other beginnings are continued. The gold reward is the better classifier's.

After Xiao et al. 2025, "Finding the sweet spot" (arXiv:2502.16825), which has 8B models, up to 400 answers, and a learnt reward model.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import methods
import numpy as np
from study_parts.policies import MEASURES, compared, ends_of, gold_against_kl
from study_parts.results import arguments, before_training, made_on, records_of, spent_on, write_results

from align.data.making.selectors import Choice, best_sigma, best_worst
from align.files import write_rows, write_text
from align.models.loading import load_tokenizer
from align.rewards.load import REWARDS
from align.sampling.ask import Asking, ask
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of

BEGINNINGS, SAMPLES, STEPS, ASKED, AGAINST, RESULT = 120, 64, 120, 128, "worst", "sweet_spot"
RULES = {
    "worst": best_worst,
    "two deviations below": best_sigma,
}
COLOURS = {"worst": "#9a6700", "two deviations below": "#1f6feb"}


def sampled(ref: Policy, data: Path, out: Path) -> list[dict[str, Any]]:
    """Answers of the reference with their proxy rewards, a row a beginning; what is there stays."""
    path = out / "answers.jsonl"
    if not path.is_file():
        apart = methods.HELD_OUT + methods.PAIRS
        asked = [row["prompt"] for row in methods.beginnings(data)[apart : apart + BEGINNINGS]]
        asking = Asking(asked, Decoding(methods.TOKENS, 1.0, seed=2), SAMPLES, 4 * methods.BATCH, out)
        answers = ask(load_tokenizer(ref.settings), ref.load(), asking, "answers", "the model")
        texts = [[one.text for one in some] for some in answers]
        proxy: Any = REWARDS[methods.PROXY].reward
        rows = [
            {"prompt": prompt, "completions": some, "rewards": proxy(some)}
            for prompt, some in zip(asked, texts, strict=True)
        ]
        write_rows(rows, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chosen_by(rule: str, rows: list[dict[str, Any]]) -> list[Choice]:
    """A pair of each beginning."""
    return [choice for row in rows for choice in RULES[rule](row["rewards"])]


def recipe_of(rule: str, rows: list[dict[str, Any]], out: Path) -> Path:
    """The recipe of a policy, on disk, without seed and folder, and its pairs beside it."""
    pairs = out / f"{methods.as_file(rule)}.jsonl"
    texts = [
        {"prompt": row["prompt"], "chosen": row["completions"][one.chosen], "rejected": row["completions"][one.rejected]}
        for row, one in zip(rows, chosen_by(rule, rows), strict=True)
    ]  # fmt: skip
    write_rows(texts, pairs, replace=True)
    train = methods.recipe_of("dpo", out)["train"] | {"max_steps": STEPS, "save_steps": STEPS}
    return methods.recipe_file("dpo", out, rule, train=train, data={"train": {"path": str(pairs)}})


def trained(rule: str, seed: int, rows: list[dict[str, Any]], out: Path) -> Policy:
    """A policy; what is there is not trained again, what was killed goes on."""
    run, recipe = out / methods.as_file(rule) / f"seed-{seed}", recipe_of(rule, rows, out)
    methods.finished(recipe, run, [f"train.seed={seed}"])
    return policy_of(str(run))


def of_pairs(rule: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the two answers of pairs lie among all, in deviations from the mean, and how often the rejected one is the worst."""
    chosen = chosen_by(rule, rows)
    scores = np.array([row["rewards"] for row in rows])
    z = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    at = np.arange(len(rows))
    rejected = [one.rejected for one in chosen]
    return {
        "chosen, deviations from the mean": round(float(z[at, [one.chosen for one in chosen]].mean()), 3),
        "rejected, deviations from the mean": round(float(z[at, rejected].mean()), 3),
        "rejected is the worst": round(float((scores[at, rejected] == scores.min(axis=1)).mean()), 3),
    }


def written(rows: list[dict[str, Any]], out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    records, start = records_of(out, RULES), before_training(out)
    told = compared(ends_of(records), AGAINST)
    pairs = {rule: of_pairs(rule, rows) for rule in RULES}
    result = {**made_on(spent_on(records)), "measures": MEASURES, "reference": start, "pairs": pairs, "rules": told}
    write_results(RESULT, result, gold_against_kl(told, start, COLOURS), results)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = arguments(main.__doc__, "data", "out").parse_args(argv)
    out = options.out.absolute()
    ref = methods.begun(options.data, out)
    rows = sampled(ref, options.data, out)
    for seed in range(options.seeds):
        for rule in RULES:
            path = out / "records" / f"{rule}-{seed}.json"
            if not path.is_file():
                began = time.process_time()
                policy = trained(rule, seed, rows, out)
                spent = round(time.process_time() - began)
                found = methods.record({"end": policy}, ref, options.data, out, ASKED)
                write_text(path, json.dumps(found | {"seed": seed, "cpu_seconds": spent}))
            written(rows, out, options.results)


if __name__ == "__main__":
    main()
