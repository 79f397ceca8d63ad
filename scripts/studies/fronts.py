"""Compares ways to a front of three rewards on easy word problems, each with the same number of training answers.

Run: python scripts/studies/fronts.py DATA_FOLDER OUT_FOLDER [--seeds N] [--methods NAME ...]. What is there is not done again;
what was killed goes on. After every method of every seed fronts.json and fronts.png are written anew.

SmolLM2-135M-Instruct after the warm-up of `scripts/bench/quality/math_objectives.py`, and its problems; rewards are
correctness, brevity (one minus an answer's characters over 60, at least 0) and clarity. All methods take 21 steps of 8 answers
of at most 32 tokens, in all: three times 7 for soups, seven times 3 for C-MORL (fixed weights, then the sparsest point
extended towards each reward). Learning rate and adapter are the same for all; a conditioned policy learns from 4 pairs a step
and others from 2 groups of 4. Every policy, mixture or preference then answers the same 48 held-out problems once, with the
same noise. C-MORL's choice of a point reads these answers too.

Volumes are over the corner (0, 0, 0). Hypervolume and expected utility are corrected for the luck of the best
(`eval.fronts.indicators`). Intervals over prompts hold the seeds fixed; those over seeds are Student's.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from as_json import shown

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
from align.rewards.load import REWARDS, Known
from align.runs.directory import METRICS_FILE, read_metrics
from align.sampling.answer_file import HowToSample, read_prompts, sample_to_file
from align.sampling.ask import decoding_of
from align.sampling.policy import policy_of
from align.sampling.preferred import context_for
from align.weighting.archive import hypervolume, nondominated
from eval.fronts.indicators import Points, drawn_means, expected_utility, indicator_estimate
from eval.report.front import write_front
from eval.report.plots_fronts import front_picture
from eval.statistics.intervals import Estimate, over_seeds, rng_of_report

sys.path.insert(0, str(Path(__file__).parents[1] / "bench" / "quality"))
from math_objectives import HELD_OUT, problems, warm_up, write

OBJECTIVES = ("correctness", "brevity", "clarity")
CHARACTERS, TOKENS, STEPS, ANSWERS, RATE = 60, 32, 21, 8, 7e-4
FIXED, BEFORE, RESULT = "fixed weights", "before", "fronts"
METHODS = {  # method of a recipe, its own settings, its `fronts`; the steps of one policy
    FIXED: ("dynamic_grpo", {"weighting": "fixed"}, None, STEPS),
    "UPGrad": ("dynamic_grpo", {"weighting": "upgrad", "gradient_layers": 4}, None, STEPS),
    "hypervolume rule": (
        "dynamic_grpo",
        {"weighting": "hypervolume", "weighting_options": {"bounds": [[0.0, 1.0] for _ in OBJECTIVES]}},
        None,
        STEPS,
    ),
    "C-MORL": ("dynamic_grpo", {}, {"kind": "c_morl", "points": 1}, STEPS // 7),
    "Pareto manifold": ("dynamic_grpo", {}, {"kind": "manifold", "sweep": 3}, STEPS),
    "rewarded soups": ("dynamic_grpo", {}, {"kind": "soups", "sweep": 3}, STEPS // 3),
    "conditioned policy": ("trajectory_balance", {"prompt_weights": 1.0, "beta": 0.1}, None, STEPS),
}
INDICATORS: dict[str, Callable[[Points], float]] = {
    "hypervolume": lambda points: hypervolume(points, np.zeros(len(OBJECTIVES))),
    "expected utility": lambda points: expected_utility(points, divisions=20),
}
DRAWS = 500


class Found(NamedTuple):
    """What a method reached with a seed."""

    names: list[str]
    tables: np.ndarray
    """Rewards on held-out problems, shape (policies, problems, objectives)."""
    cost: dict[str, int]


def brevity(completions: list[Any], **_: Any) -> list[float]:
    """One minus the characters of an answer over 60, at least 0."""
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [max(0.0, 1 - len(text) / CHARACTERS) for text in texts]


def recipe_of(name: str, out: Path) -> dict[str, Any]:
    """The recipe of a method, without seed and folder."""
    method, settings, fronts, steps = METHODS[name]
    rows = {"train": {"path": str(out / "train.jsonl")}, "eval": {"held_out": {"path": str(out / "held-out.jsonl")}}}
    grouped = {"estimator": "group", "num_generations": 4} if method == "dynamic_grpo" else {}
    recipe = {
        "method": method,
        "model": {"model_name_or_path": str(out / "warm"), "dtype": "float32"},
        "lora": {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                 "up_proj", "down_proj"], "layers_to_transform": list(range(15, 30))},
        "data": rows,
        "rewards": list(OBJECTIVES),
        "train": {
            "output_dir": "runs/study", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_steps": steps,
            "per_device_train_batch_size": ANSWERS, "max_completion_length": TOKENS, "gradient_checkpointing": False,
            "use_cpu": True, "bf16": False, "save_steps": 7, "save_total_limit": 1, "logging_steps": 1,
            "report_to": "none", "seed": 0, **grouped, **settings,
        },
        "eval": {"generate": {"prompts": HELD_OUT, "samples": 1, "max_new_tokens": TOKENS, "temperature": 1.0, "seed": 7,
                 "batch_size": HELD_OUT}},
    }  # fmt: skip
    return recipe if fronts is None else recipe | {"fronts": fronts}


def table(path: Path, asked: list[str]) -> np.ndarray:
    """Rewards of one answer a problem, in the order of `asked`; shape (problems, objectives)."""
    rows = {json.dumps(row["prompt"]): row["rewards"][0] for row in read(DataSource(str(path))).to_list()}
    return np.array([[rows[prompt][name] for name in OBJECTIVES] for prompt in asked])


def answered(run: Path, scores: Path, prefer: dict[str, float] | None, rows: list[dict[str, Any]]) -> None:
    """Write the answers of a run's policy with all rewards, unless they are there."""
    if scores.is_file():
        return
    recipe: Any = load_recipe(run / "recipe.resolved.yaml")
    settings, answers = recipe.eval.generate, scores.with_name(f"answers-{scores.name}")
    how = HowToSample(decoding_of(settings), 1, settings.batch_size, context=context_for(run, prefer))
    sample_to_file(policy_of(str(run)), rows, how, answers, who=scores.stem, replace=True)
    scorers = scorers_of(ScoreConfig(rewards=dict.fromkeys(OBJECTIVES)), recipe.model, where="rewards")
    write_rows(score_rows(read(DataSource(str(answers))).to_list(), scorers).rows, scores, replace=True)


def reached(name: str, seed: int, out: Path) -> Found:
    """Train what is missing of a method with a seed, and read what its policies reach."""
    run, began = out / name.replace(" ", "-") / f"seed-{seed}", time.perf_counter()
    recipe = out / f"{name.replace(' ', '-')}.yaml"
    recipe.write_text(yaml.safe_dump(recipe_of(name, out), sort_keys=False), encoding="utf-8")
    words = [f"train.seed={seed}", f"train.output_dir={run}"]
    rows = read_prompts(DataSource(str(out / "held-out.jsonl")))
    if METHODS[name][2] is not None:
        write_front(front([str(recipe), *words, "--resume", "auto"]))
        told = json.loads((run / MEMBERS).read_text(encoding="utf-8"))
        paths = {one["name"]: run / one["scores"] for one in told["members"]}
    else:
        if not (run / "adapter").is_dir():
            align.run(recipe, words, resume="auto")
        worths = sweep(len(OBJECTIVES), 3) if name == "conditioned policy" else [[]]
        paths = {
            ", ".join(map(str, worth)) or name: out / "scores" / f"{run.parent.name}-{seed}-{k}.jsonl"
            for k, worth in enumerate(worths)
        }
        for path, worth in zip(paths.values(), worths, strict=True):
            answered(run, path, dict(zip(OBJECTIVES, worth, strict=True)) if worth else None, rows)
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
    return Found(list(paths), np.stack([table(path, asked) for path in paths.values()]), cost)


def summary(every: dict[tuple[int, str], Found]) -> dict[str, Any]:
    """All figures of what is there."""
    sizes = np.cumsum([0, *(len(found.names) for found in every.values())])
    places = {key: slice(*sizes[k : k + 2]) for k, key in enumerate(every)}
    drawn = drawn_means(np.concatenate([one.tables for one in every.values()]), rng=rng_of_report(), draws=DRAWS)
    seeds, methods = sorted({seed for seed, _ in every}), list(dict.fromkeys(name for _, name in every))
    told: dict[str, Any] = {"objectives": list(OBJECTIVES), "seeds": {}, "methods": {}}

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
    return told


def report(every: dict[tuple[int, str], Found], out: Path) -> dict[str, Any]:
    """Write figures and picture."""
    told = summary(every)
    write_text(out / f"{RESULT}.json", json.dumps(told, indent=1) + "\n")
    drawn = {
        name: [found.tables.mean(axis=1) for (_, other), found in every.items() if other == name]
        for name in told["methods"]
    }
    (out / f"{RESULT}.png").write_bytes(front_picture(drawn, OBJECTIVES))
    return told


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args(argv)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    REWARDS["brevity"] = Known(brevity, 0, 1)
    if not (out / "warm").is_dir():
        warm_up(options.data, out)
    rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in problems(options.data)]
    write(out / "held-out.jsonl", rows[:HELD_OUT])
    write(out / "train.jsonl", rows[HELD_OUT:])
    every: dict[tuple[int, str], Found] = {}
    for seed in range(options.seeds):
        for name in options.methods:
            every[seed, name] = reached(name, seed, out)
            ref = out / "rewarded-soups" / f"seed-{seed}" / "policies" / "ref" / "scores.jsonl"
            if ref.is_file() and not any(other == BEFORE for _, other in every):
                asked = [json.dumps(row["prompt"]) for row in read_prompts(DataSource(str(out / "held-out.jsonl")))]
                every[seed, BEFORE] = Found([BEFORE], table(ref, asked)[None], {})
            told = report(every, out)
            print(json.dumps({name: told["seeds"][str(seed)][name]}), flush=True)


if __name__ == "__main__":
    main()
