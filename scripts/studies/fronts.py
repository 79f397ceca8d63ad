"""Compares ways to a front of several rewards, each with the same number of training answers.

Run: python scripts/studies/fronts.py DATA_FOLDER OUT_FOLDER [--task math|dialogue] [--seeds N] [--methods NAME ...]. What is there
is not done again; what was killed goes on. After every method of every seed figures (JSON) and picture are written anew.

`front_tasks.py` has the task `math`, with three rewards; `front_dialogue.py` has `dialogue`, with two that were learnt from people's
ratings. All methods take 21 steps (20 with two rewards) of 8 answers in all: as many policies as rewards for soups, 2 K + 1 for
C-MORL with K rewards (fixed weights, then the sparsest point
extended towards each reward). Learning rate and adapter are the same for all; a conditioned policy learns from 4 pairs a step
and others from 2 groups of 4. Every policy, mixture or preference then answers the same held-out prompts once, with the
same noise. C-MORL's choice of a point reads these answers too.

Volumes are over the corner 0. Hypervolume and expected utility are corrected for the luck of the best
(`eval.fronts.indicators`). Intervals over prompts hold the seeds fixed; those over seeds are Student's.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from study_parts.as_json import shown
from study_parts.base import adapters
from study_parts.front_dialogue import DIALOGUE
from study_parts.front_tasks import MATH, Task

import align
from align.commands.front import main as front
from align.data.loading import DataSource, read
from align.files import write_rows, write_text
from align.fronts.run import MEMBERS
from align.judges.from_scores import scorers_of
from align.judges.scoring import score_rows
from align.merging.command import sweep
from align.recipe.loading import load_recipe
from align.recipe.scores import ScoreConfig
from align.rewards.texts import text_of
from align.runs.directory import METRICS_FILE, read_metrics
from align.sampling.answer_file import HowToSample, read_prompts, sample_to_file
from align.sampling.ask import decoding_of
from align.sampling.policy import policy_of
from align.sampling.preferred import context_for
from align.weighting.archive import hypervolume, nondominated
from eval.fronts.indicators import Points, drawn_means, expected_utility, indicator_estimate
from eval.report.front import write_front
from eval.report.plots_fronts import front_picture
from eval.statistics.intervals import Estimate, mean_estimate, over_seeds, rng_of_report

TASKS = {"math": MATH, "dialogue": DIALOGUE}
ANSWERS, RATE = 8, 7e-4
FIXED, BEFORE = "fixed weights", "before"
METHODS = {  # method of a recipe, its own settings, its `fronts`; how many policies of K rewards share the steps
    FIXED: ("dynamic_grpo", {"weighting": "fixed"}, None, lambda _: 1),
    "UPGrad": ("dynamic_grpo", {"weighting": "upgrad", "gradient_layers": 4}, None, lambda _: 1),
    "hypervolume rule": ("dynamic_grpo", {"weighting": "hypervolume"}, None, lambda _: 1),
    "C-MORL": ("dynamic_grpo", {}, {"kind": "c_morl", "points": 1}, lambda rewards: 2 * rewards + 1),
    "Pareto manifold": ("dynamic_grpo", {}, {"kind": "manifold", "sweep": 3}, lambda _: 1),
    "rewarded soups": ("dynamic_grpo", {}, {"kind": "soups", "sweep": 3}, lambda rewards: rewards),
    "conditioned policy": ("trajectory_balance", {"prompt_weights": 1.0, "beta": 0.1}, None, lambda _: 1),
}
INDICATORS: dict[str, Callable[[Points], float]] = {
    "hypervolume": lambda points: hypervolume(points, np.zeros(points.shape[1])),
    "expected utility": lambda points: expected_utility(points, divisions=20),
}
DRAWS = 500


class Found(NamedTuple):
    """What a method reached with a seed."""

    names: list[str]
    tables: np.ndarray
    """Rewards on held-out prompts, shape (policies, prompts, objectives)."""
    cost: dict[str, int]
    checks: np.ndarray | None = None
    """What the task checks of each answer beside its rewards, shape (policies, prompts)."""


def recipe_of(name: str, task: Task, out: Path) -> dict[str, Any]:
    """The recipe of a method, without seed and folder."""
    method, settings, fronts, policies = METHODS[name]
    if settings.get("weighting") == "hypervolume":
        settings = settings | {"weighting_options": {"bounds": [[0.0, 1.0] for _ in task.objectives]}}
    rows = {"train": {"path": str(out / "train.jsonl")}, "eval": {"held_out": {"path": str(out / "held-out.jsonl")}}}
    grouped = {"estimator": "group", "num_generations": 4} if method == "dynamic_grpo" else {}
    recipe = {
        "method": method,
        "model": {"model_name_or_path": str(out / "warm"), "dtype": "float32"},
        "lora": adapters(range(15, 30)),
        "data": rows,
        "rewards": list(task.objectives),
        "train": {
            "output_dir": "runs/study", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_steps": task.steps // policies(len(task.objectives)),
            "per_device_train_batch_size": ANSWERS, "max_completion_length": task.tokens, "gradient_checkpointing": False,
            "use_cpu": True, "bf16": False, "save_steps": 7, "save_total_limit": 1, "logging_steps": 1,
            "report_to": "none", "seed": 0, **grouped, **settings,
        },
        "eval": {"generate": {"prompts": task.held_out, "samples": 1, "max_new_tokens": task.tokens, "temperature": 1.0,
                 "seed": 7, "batch_size": task.held_out}},
    }  # fmt: skip
    return recipe if fronts is None else recipe | {"fronts": fronts}


def found(paths: dict[str, Path], task: Task, asked: list[str], cost: dict[str, int]) -> Found:
    """What policies reach, by their answers with rewards; one answer a prompt, in the order of `asked`."""
    tables, checks = [], []
    for path in paths.values():
        rows = {json.dumps(row["prompt"]): row for row in read(DataSource(str(path))).to_list()}
        tables.append([[rows[prompt]["rewards"][0][name] for name in task.objectives] for prompt in asked])
        if task.check is not None:
            checks.append([task.check(json.loads(one), text_of(rows[one]["completions"][0])) for one in asked])
    return Found(list(paths), np.array(tables), cost, np.array(checks) if checks else None)


def answered(run: Path, scores: Path, prefer: dict[str, float] | None, rows: list[dict[str, Any]]) -> None:
    """Write the answers of a run's policy with all rewards, unless they are there."""
    if scores.is_file():
        return
    recipe: Any = load_recipe(run / "recipe.resolved.yaml")
    settings, answers = recipe.eval.generate, scores.with_name(f"answers-{scores.name}")
    how = HowToSample(decoding_of(settings), 1, settings.batch_size, context=context_for(run, prefer))
    sample_to_file(policy_of(str(run)), rows, how, answers, who=scores.stem, replace=True)
    scorers = scorers_of(ScoreConfig(rewards=dict.fromkeys(recipe.rewards)), recipe.model, where="rewards")
    write_rows(score_rows(read(DataSource(str(answers))).to_list(), scorers).rows, scores, replace=True)


def reached(name: str, task: Task, seed: int, out: Path) -> Found:
    """Train what is missing of a method with a seed, and read what its policies reach."""
    run, began = out / name.replace(" ", "-") / f"seed-{seed}", time.perf_counter()
    recipe = out / f"{name.replace(' ', '-')}.yaml"
    recipe.write_text(yaml.safe_dump(recipe_of(name, task, out), sort_keys=False), encoding="utf-8")
    words = [f"train.seed={seed}", f"train.output_dir={run}"]
    rows = read_prompts(DataSource(str(out / "held-out.jsonl")))
    if METHODS[name][2] is not None:
        write_front(front([str(recipe), *words, "--resume", "auto"]))
        told = json.loads((run / MEMBERS).read_text(encoding="utf-8"))
        paths = {one["name"]: run / one["scores"] for one in told["members"]}
    else:
        if not (run / "adapter").is_dir():
            align.run(recipe, words, resume="auto")
        worths = sweep(len(task.objectives), 3) if name == "conditioned policy" else [[]]
        paths = {
            ", ".join(map(str, worth)) or name: out / "scores" / f"{run.parent.name}-{seed}-{k}.jsonl"
            for k, worth in enumerate(worths)
        }
        for path, worth in zip(paths.values(), worths, strict=True):
            answered(run, path, dict(zip(task.objectives, worth, strict=True)) if worth else None, rows)
    asked = [json.dumps(row["prompt"]) for row in rows]
    logs = [read_metrics(path) for path in sorted(run.rglob(METRICS_FILE))]
    steps = [row for log in logs for row in log if "completions/mean_length" in row]
    cost = {
        "steps": len(steps),
        "generated tokens": round(ANSWERS * sum(row["completions/mean_length"] for row in steps)),
    }
    spent = run / "seconds.json"
    if not spent.is_file():
        write_text(spent, json.dumps(time.perf_counter() - began))
    cost["seconds"] = round(json.loads(spent.read_text(encoding="utf-8")))
    return found(paths, task, asked, cost)


def summary(every: dict[tuple[int, str], Found], task: Task) -> dict[str, Any]:
    """All figures of what is there."""
    sizes = np.cumsum([0, *(len(found.names) for found in every.values())])
    places = {key: slice(*sizes[k : k + 2]) for k, key in enumerate(every)}
    drawn = drawn_means(np.concatenate([one.tables for one in every.values()]), rng=rng_of_report(), draws=DRAWS)
    seeds, methods = sorted({seed for seed, _ in every}), list(dict.fromkeys(name for _, name in every))
    told: dict[str, Any] = {"objectives": list(task.objectives), "seeds": {}, "methods": {}}

    def of(indicator: Callable[[Points], float], keys: list[tuple[int, str]], less: str | None = None) -> Estimate:
        def value(points: Points) -> float:
            return float(
                np.mean(
                    [
                        indicator(points[places[key]])
                        - (0.0 if less is None else indicator(points[places[key[0], less]]))
                        for key in keys
                    ]
                )
            )

        return indicator_estimate(value, drawn, least=0.0 if less is None else -np.inf)

    for seed, name in every:
        points = drawn.means[places[seed, name]]
        on_front = nondominated(points)
        told["seeds"].setdefault(str(seed), {})[name] = {
            "points": {
                who: {"values": np.round(point, 4).tolist(), "on front": bool(best)}
                for who, point, best in zip(every[seed, name].names, points, on_front, strict=True)
            },
            **every[seed, name].cost,
            **{k: shown(of(indicator, [(seed, name)])) for k, indicator in INDICATORS.items()},
        }
    for name in methods:
        there = [seed for seed in seeds if (seed, name) in every]
        both = [(seed, name) for seed in there if (seed, FIXED) in every and name != FIXED]
        told["methods"][name] = {"seeds": len(there)}
        for k, indicator in INDICATORS.items():
            mine = [(seed, name) for seed in there]
            figures = {"over prompts": shown(of(indicator, mine))}
            each = {key: indicator(drawn.means[places[key]]) for key in (*mine, *((s, FIXED) for s, _ in both))}
            if len(mine) > 1:
                figures["over seeds"] = shown(over_seeds(np.array([each[key] for key in mine])))
            if both:
                figures["minus fixed weights, over prompts"] = shown(of(indicator, both, FIXED))
            if len(both) > 1:
                gaps = np.array([each[key] - each[key[0], FIXED] for key in both])
                figures["minus fixed weights, over seeds"] = shown(over_seeds(gaps))
            told["methods"][name][k] = figures
        checks = [one for seed in there if (one := every[seed, name].checks) is not None]
        if checks:
            values = np.mean([one.mean(axis=0) for one in checks], axis=0)
            told["methods"][name][task.checked] = {"over prompts": shown(mean_estimate(values, bounds=(0.0, 1.0)))}
            before = next((one.checks for (_, other), one in every.items() if other == BEFORE), None)
            if before is not None and name != BEFORE:
                gap = mean_estimate(values - before[0], bounds=(-1.0, 1.0))
                told["methods"][name][task.checked]["minus before, over prompts"] = shown(gap)
    return told


def report(every: dict[tuple[int, str], Found], task: Task, out: Path, more: dict[str, Any]) -> dict[str, Any]:
    """Write figures, those of the task itself among them, and picture."""
    told = more | summary(every, task)
    write_text(out / f"{task.result}.json", json.dumps(told, indent=1) + "\n")
    drawn = {
        name: [found.tables.mean(axis=1) for (_, other), found in every.items() if other == name]
        for name in told["methods"]
    }
    (out / f"{task.result}.png").write_bytes(front_picture(drawn, task.objectives))
    return told


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=TASKS, default="math")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args(argv)
    task, out = TASKS[options.task], options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    more = task.prepare(options.data, out)
    every: dict[tuple[int, str], Found] = {}
    for seed in range(options.seeds):
        for name in options.methods:
            every[seed, name] = reached(name, task, seed, out)
            ref = out / "rewarded-soups" / f"seed-{seed}" / "policies" / "ref" / "scores.jsonl"
            if ref.is_file() and not any(other == BEFORE for _, other in every):
                asked = [json.dumps(row["prompt"]) for row in read_prompts(DataSource(str(out / "held-out.jsonl")))]
                every[seed, BEFORE] = found({BEFORE: ref}, task, asked, {})
            told = report(every, task, out, more)
            print(json.dumps({name: told["seeds"][str(seed)][name]}), flush=True)


if __name__ == "__main__":
    main()
