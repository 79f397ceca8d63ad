"""Asks whether a policy that learns too long from a weak judge's pairs gets worse, and whether RPO's likelihood term mends that.

Run: python scripts/studies/reviews/overoptimisation.py DATA_FOLDER OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; what
was killed goes on. After every policy overoptimisation.json and overoptimisation.png are written anew.

The model, the beginnings of reviews and the weak classifier that ranks answers (the proxy) are those of `methods.py`; but there
are 120 pairs in place of 600, gone through 8 times, with a β that hardly holds the policy, at a constant rate. 96 other beginnings are
continued at four checkpoints of each policy with the same noise. The gold reward is `positive_sentiment`, a lexicon that gives -1 to
what repeats itself: the better classifier of `methods.py` counts words, and gives the most to nothing but "and".

The fall of the gold reward is that of the last checkpoint under the best. The best is chosen by one half of the beginnings and
the fall measured on the other, both ways, so that the choice favours no side.

After Liu et al. 2024, "Provably mitigating overoptimization in RLHF" (arXiv:2405.16436), which has a learnt judge and 7B models.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import methods
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from study_parts.as_json import over, over_less
from study_parts.results import (
    arguments,
    before_training,
    made_on,
    measures_of,
    records_of,
    reference_record,
    spent_on,
    write_results,
)

from align.files import write_rows, write_text
from align.rewards import positive_sentiment
from align.sampling.policy import policy_of

PAIRS, EVERY, BETA, ASKED = 120, 20, 0.02, 96
ETAS = {"dpo": 0.0, "rpo 0.5": 0.5}
COLOURS = {"dpo": "#9a6700", "rpo 0.5": "#1f6feb"}
RESULT, AGAINST = "overoptimisation", "dpo"
CHECKPOINTS = (20, 60, 120, 240)
BOUNDS = {"gold": (-1.0, 1.0), "proxy": (0.0, 1.0), "kl": (-np.inf, np.inf)}
Curves = Float[np.ndarray, "seeds checkpoints prompts"]


def recipe_of(name: str, out: Path) -> Path:
    """The recipe of a policy, on disk, without seed and folder."""
    eta = ETAS[name]
    recipe = methods.recipe_of("dpo", out)
    train = recipe["train"] | {
        "beta": BETA, "lr_scheduler_type": "constant_with_warmup", "max_steps": CHECKPOINTS[-1],
        "save_steps": EVERY, "save_total_limit": CHECKPOINTS[-1] // EVERY,
    }  # fmt: skip
    rows = {"train": {"path": str(out / "few-pairs.jsonl")}}
    told = {"method": "rpo" if eta else "dpo", "train": train | ({"eta": eta} if eta else {}), "data": rows}
    return methods.recipe_file("dpo", out, name, **told)


def run_of(name: str, seed: int, out: Path) -> dict[str, Any]:
    """Trains a policy, as far as that is not done, and what its checkpoints answer."""
    run, began = out / methods.as_file(name) / f"seed-{seed}", time.process_time()
    recipe = recipe_of(name, out)
    methods.finished(recipe, run, [f"train.seed={seed}"])
    return {"run": run, "cpu_seconds": round(time.process_time() - began)}


def fall(gold: Curves) -> Float[np.ndarray, "seeds prompts"]:
    """Gold reward at the end less that of the best checkpoint, chosen by the other half of the prompts."""
    found = np.empty((gold.shape[0], gold.shape[2]))
    for seed, one in enumerate(gold):
        for half in (0, 1):
            best = one[:, 1 - half :: 2].mean(axis=1).argmax()
            found[seed, half::2] = one[-1, half::2] - one[best, half::2]
    return found


def summary(found: dict[str, dict[str, Curves]]) -> dict[str, Any]:
    """By policy: gold and proxy reward and KL at each checkpoint, the fall of the gold reward, and both less DPO's."""
    told: dict[str, Any] = {}
    falls = {name: fall(curves["gold"]) for name, curves in found.items()}
    for name, curves in found.items():
        one: dict[str, Any] = {
            str(step): {measure: over(rows[:, at], BOUNDS[measure]) for measure, rows in curves.items()}
            for at, step in enumerate(CHECKPOINTS)
        }
        told[name] = {"by step": one, "gold, end less best": over(falls[name], (-2, 2))}
        if name != AGAINST and AGAINST in found:
            ends = [found[of]["gold"][:, -1] for of in (name, AGAINST)]
            told[name][f"gold at the end, less that of {AGAINST}"] = over_less(*ends, (-2, 2))
            gap = over_less(falls[name], falls[AGAINST], (-4, 4))
            told[name][f"gold, end less best, less that of {AGAINST}"] = gap
    return told


def drawn(told: dict[str, Any], start: dict[str, float]) -> Figure:
    """Gold and proxy reward along training, then the gold reward against the KL; intervals over prompts."""
    figure = Figure(figsize=(8, 3.4), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, one in told.items():
        steps = [0, *map(int, one["by step"])]
        at = {
            measure: [each[measure]["over prompts"] for each in one["by step"].values()]
            for measure in ("gold", "proxy", "kl")
        }
        means = {measure: [start[measure], *(each["value"] for each in rows)] for measure, rows in at.items()}
        left.plot(steps, means["gold"], "-", color=COLOURS[name], label=name)
        left.plot(steps, means["proxy"], ":", color=COLOURS[name])
        left.fill_between(
            steps[1:], [one["low"] for one in at["gold"]], [one["high"] for one in at["gold"]], color=COLOURS[name], alpha=0.12, linewidth=0
        )  # fmt: skip
        right.plot(means["kl"], means["gold"], "o-", color=COLOURS[name], markersize=3)
    left.set(xlabel="steps", ylabel="reward: gold (line), proxy (dots)")
    right.set(xlabel="KL to the reference, nats an answer", ylabel="gold reward")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    return figure


def curves_of(records: list[dict[str, Any]]) -> dict[str, Curves]:
    """Measures of all checkpoints of several seeds."""
    points = [[record[f"step {step}"] for step in CHECKPOINTS] for record in records]
    runs = [measures_of(some) | {"gold": gold_of(some)} for some in points]
    return {measure: np.stack([run[measure] for run in runs]) for measure in runs[0]}


def gold_of(points: list[dict[str, Any]]) -> Float[np.ndarray, "checkpoints prompts"]:
    """The gold reward of what each checkpoint answered."""
    return np.array([positive_sentiment(one["texts"]) for one in points], dtype=float)


def written(out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    records, start = records_of(out, ETAS), before_training(out)
    start["gold"] = round(float(gold_of([reference_record(out)["end"]]).mean()), 4)
    told = summary({name: curves_of(some) for name, some in records.items()})
    write_results(
        RESULT, {**made_on(spent_on(records)), "reference": start, "policies": told}, drawn(told, start), results
    )


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = arguments(main.__doc__, "data", "out").parse_args(argv)
    out = options.out.absolute()
    ref = methods.begun(options.data, out)
    rows = (out / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    write_rows([json.loads(row) for row in rows[:PAIRS]], out / "few-pairs.jsonl", replace=True)
    for seed in range(options.seeds):
        for name in ETAS:
            path = out / "records" / f"{name}-{seed}.json"
            if not path.is_file():
                told = run_of(name, seed, out)
                points = {f"step {step}": policy_of(str(told["run"] / f"checkpoint-{step}")) for step in CHECKPOINTS}
                found = methods.record(points, ref, options.data, out, ASKED)
                write_text(path, json.dumps(found | {"seed": seed, "cpu_seconds": told["cpu_seconds"]}))
            written(out, options.results)


if __name__ == "__main__":
    main()
