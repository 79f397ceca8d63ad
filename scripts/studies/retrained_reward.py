"""Asks whether a reward model that is trained anew on the policy's own answers after every round steers it better than one that is not.

Run: python scripts/studies/retrained_reward.py DATA_FOLDER OUT_FOLDER [--seeds N]. What is there is not done again: a run goes on
with `resume`, answers are kept as they come. Writes retrained_reward.json, and a picture of it.

The loop of PARL (Chakraborty et al. 2023, arXiv:2308.02585) through `rounds`: SmolLM2-135M-Instruct continues the beginnings of reviews by 16
tokens. Four rounds of DPO, of 48 beginnings with four answers, best against worst by a Bradley-Terry reward model, each against
the policy of the round before. The reward model learns from labels of a gold classifier of sentiment, 48 pairs of answers to other
beginnings before the first round and after each but the last, from the newest policy, and is trained anew on all labels so far: `every
round`. With `never` it has the same number of labels, all of them on answers of the policy that training begins with. It is
trained for two passes over its labels, always from SmolLM2. The part of PARL's gradient that goes through the policy is not
there: a loop trains the reward model on its labels alone (`bilevel.py` shows that part on a bandit).
All policies then continue the same 192 other beginnings with the same noise.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rounds_against_one import HELD_OUT, Task, judge, measured, preferred, recipe_of, sentiment, shown, written

import align
from align.recipe.loading import load_recipe
from align.sampling.policy import Policy, policy_of, reference_of
from eval.statistics.intervals import mean_estimate, over_seeds

ROUNDS, LABELLED, PASSES = 4, 24, 2
"""Rounds; beginnings labelled at a time, two pairs of each; passes over the labels."""
ARMS = {"every round": 1, "never": ROUNDS}
"""Rounds between two trainings of the reward model."""
FIRST_LABELLED = 1024


def looped(
    task: Task, common: dict[str, Any], every: int, out: Path, seed: int
) -> tuple[dict[str, Policy], dict[str, Path]]:
    """The policies after each round, and the reward model that judged its answers, by the round's name."""
    policy, before = reference_of(load_recipe(written(out / "beginning.yaml", common))), None
    policies, judges, pairs = {"beginning": policy}, {}, []
    for done in range(0, ROUNDS, every):
        block = out / f"after-{done}"
        block.mkdir(parents=True, exist_ok=True)
        first, last = (FIRST_LABELLED + LABELLED * times for times in (done, done + every))
        name, file = f"labelled-{done}-{done + every}", block / "labels.jsonl"
        pairs += preferred(task, policy, task.rows[first:last], block, name, 100 * seed + 50)
        made = {"num_train_epochs": PASSES, "seed": seed}
        model = judge("reward_model", common, pairs, file, block / "reward-model", **made)
        run, recipe = block / "rounds", dict(common)
        if before is not None:
            recipe["start"] = {"adapter": str(before)}
            del recipe["lora"]  # it is that of the adapter
        recipe["rounds"] = common["rounds"] | {
            "count": every,
            "score": {"kind": "preference_model", "path": str(model)},
        }
        recipe["rounds"]["sample"] = common["rounds"]["sample"] | {"seed": 100 * seed + done}
        if not (run / "adapter").is_dir():
            words = [f"train.seed={seed + 10 * done}", f"train.output_dir={run}"]
            align.run(written(block / "rounds.yaml", recipe), words, resume="auto")
        for number in range(1, every + 1):
            policy = policy_of(str(run / f"round-{number}" / "train"))
            policies[f"after {done + number}"], judges[f"after {done + number}"] = policy, model
        before = run / "adapter"
    return policies, judges


def of_seed(task: Task, common: dict[str, Any], out: Path, seed: int) -> dict[str, Any]:
    """Gold reward and KL by round of both arms, over beginnings, and what the last policies differ by."""
    told, ends = {}, {}
    for name, every in ARMS.items():
        folder = out / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        policies, _ = looped(task, common, every, folder, seed)
        ref = policies["beginning"].load()
        found = {at: measured(policy, ref, task, out / "answers" / folder.name, at) for at, policy in policies.items()}
        bounds = {"gold": (0.0, 1.0), "kl": (-np.inf, np.inf)}
        told[name] = {
            at: {key: shown(mean_estimate(one[key], bounds=limits)) for key, limits in bounds.items()}
            for at, one in found.items()
        }
        ends[name] = found[f"after {ROUNDS}"]["gold"]
    difference = ends["every round"] - ends["never"]
    return told | {"every round minus never": shown(mean_estimate(difference, bounds=(-1.0, 1.0)))}


def over(seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Over seeds: what the last policies differ by, and what each arm gained."""

    def values(pick: Any) -> np.ndarray:
        return np.array([pick(one)["value"] for one in seeds.values()])

    last = f"after {ROUNDS}"
    gained = {
        name: values(lambda one, name=name: one[name][last]["gold"]) - values(lambda one, name=name: one[name]["beginning"]["gold"])
        for name in ARMS
    }  # fmt: skip
    return {
        "every round minus never": shown(over_seeds(values(lambda one: one["every round minus never"]))),
        "gained": {name: shown(over_seeds(found)) for name, found in gained.items()},
    }


def drawn(seeds: dict[int, dict[str, Any]]) -> Figure:
    """Gold reward by round, a line a seed and arm."""
    figure = Figure(figsize=(5.5, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for (name, colour), shift in zip(
        {"every round": "#1f6feb", "never": "#8a8f98"}.items(), (-0.03, 0.03), strict=True
    ):
        for seed, one in seeds.items():
            rows = [row["gold"] for row in one[name].values()]
            values = [row["value"] for row in rows]
            ends = [[v - row["low"] for v, row in zip(values, rows, strict=True)], [row["high"] - v for v, row in zip(values, rows, strict=True)]]  # fmt: skip
            label = f"reward model trained anew: {name}" if seed == min(seeds) else None
            axes.errorbar(
                np.arange(len(rows)) + shift,
                values,
                ends,
                color=colour,
                marker="o",
                capsize=2,
                linewidth=1,
                label=label,
            )
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="round", ylabel="gold reward of 192 answers")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, and write what is known after every seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    task = sentiment(options.data)
    train = out / "prompts.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in task.rows[HELD_OUT:FIRST_LABELLED]), encoding="utf-8")
    common = recipe_of("dpo", task, train, out)
    seeds: dict[int, dict[str, Any]] = {}
    for seed in range(options.seeds):
        seeds[seed] = of_seed(task, common, out / f"seed-{seed}", seed)
        told = {"seeds": seeds} | ({"over seeds": over(seeds)} if len(seeds) > 1 else {})
        (out / "retrained_reward.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        drawn(seeds).savefig(out / "retrained_reward.png")
        print(json.dumps(told, indent=1), flush=True)


if __name__ == "__main__":
    main()
