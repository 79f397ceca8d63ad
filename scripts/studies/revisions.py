"""Asks whether answers get better when a policy revises them, and whether SRPO, which learns to revise, does it better than DPO.

Run: python scripts/studies/revisions.py OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; after every policy
revisions.json and revisions.png are written anew.

SmolLM2-135M-Instruct in float32, LoRA on its upper half, learns from the quickstart's pairs, the model's own answers ranked by how
positive they sound: 88 of them in 22 steps, the same of a seed for both methods. SRPO scores three pairs for each, so that its steps cost
about four times as much. Each policy, and the model as it comes, then answers the quickstart's 100 other prompts, at temperature 0.7, and
is twice shown its answer as a draft with SRPO's instruction. The gold reward is the sentiment scorer that ranked the pairs.

After Choi et al. 2024, "Self-Improving Robust Preference Optimization" (arXiv:2406.01660), which has larger models, its learning from
summaries, and a judge that compares.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from matplotlib.figure import Figure
from study_parts.as_json import over, over_less
from study_parts.results import arguments, made_on, write_results

import align
from align.data.loading import DataSource, read
from align.files import write_text
from align.models.loading import load_tokenizer
from align.recipe.loading import load_recipe
from align.rewards import positive_sentiment
from align.sampling.ask import Asking, ask_by_revision
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of, reference_of

REVISIONS, TOKENS, TEMPERATURE, BATCH, LONGEST = 2, 48, 0.7, 50, 320
METHODS, REF, RESULT = ("srpo", "dpo"), "reference", "revisions"
COLOURS = {"srpo": "#1f6feb", "dpo": "#9a6700", REF: "#6e7781"}
RECIPES = Path(__file__).parents[2] / "recipes"
Rewards = Float[np.ndarray, "revisions prompts"]


def recipe_of(method: str) -> dict[str, Any]:
    """The quickstart's recipe with another method, without seed, and with room for drafts."""
    told = yaml.safe_load((RECIPES / "quickstart.yaml").read_text(encoding="utf-8"))
    train = {key: value for key, value in told["train"].items() if key not in ("eta", "seed")}
    data = {"train": {"path": str(RECIPES / "data" / "quickstart-train.jsonl")}}
    train |= {"max_length": LONGEST, "save_strategy": "no"}
    del train["save_steps"]
    return {"method": method, "model": told["model"], "lora": told["lora"], "data": data, "train": train}


def trained(method: str, seed: int, out: Path) -> Policy:
    """A policy; what is there is not trained again."""
    path, run = out / f"{method}.yaml", out / f"{method}-{seed}"
    if not (run / "adapter").is_dir():
        write_text(path, yaml.safe_dump(recipe_of(method), sort_keys=False))
        align.run(path, [f"train.output_dir={run}", f"train.seed={seed}"], overwrite=True)
    return policy_of(str(run))


def answered(policy: Policy, seed: int) -> dict[str, Any]:
    """Texts and gold rewards of the answers after 0, 1 and more revisions."""
    prompts = [row["prompt"] for row in read(DataSource(str(RECIPES / "data" / "quickstart-test.jsonl"))).to_list()]
    asking = Asking(prompts, Decoding(TOKENS, TEMPERATURE, seed), 1, BATCH, None, revisions=REVISIONS)
    stages = ask_by_revision(load_tokenizer(policy.settings), policy.load(), asking, "policy", "the policy")
    texts = [[one.text for (one,) in stage] for stage in stages]
    return {"texts": texts, "rewards": [list(positive_sentiment(stage)) for stage in texts]}


def won(rewards: Rewards) -> Float[np.ndarray, " prompts"]:
    """1 where the last revision has more reward than the first answer, one half where it has as much."""
    return (1 + np.sign(rewards[-1] - rewards[0])) / 2


def summary(found: dict[str, Float[np.ndarray, "seeds revisions prompts"]]) -> dict[str, Any]:
    """What each policy's answers are worth after every revision, and what the last is worth more than the first.

    Args:
        found: Rewards, in [-1, 1], by method.
    """
    gains = {name: rewards[:, -1] - rewards[:, 0] for name, rewards in found.items()}
    told: dict[str, Any] = {}
    for name, rewards in found.items():
        told[name] = {
            "reward": [over(rewards[:, n], (-1, 1)) for n in range(rewards.shape[1])],
            "last less first": over(gains[name], (-2, 2)),
            "last against first, win rate": over(np.stack([won(one) for one in rewards]), (0, 1)),
        }
    for other in (name for name in found if "srpo" in found and name != "srpo"):
        told["srpo"][f"last less first, less that of {other}"] = over_less(gains["srpo"], gains[other], (-4, 4))
    return told


def drawn(told: dict[str, Any]) -> Figure:
    """Gold reward after each revision with its interval over prompts, a line a policy, its seeds as dots."""
    figure = Figure(figsize=(5, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for shift, (name, one) in enumerate(told.items()):
        at = np.arange(len(one["reward"])) + 0.06 * (shift - 1)
        estimates = [each["over prompts"] for each in one["reward"]]
        axes.plot(at, [each["value"] for each in estimates], "-", color=COLOURS[name], label=name)
        for place, each, estimate in zip(at, one["reward"], estimates, strict=True):
            axes.plot([place] * 2, [estimate["low"], estimate["high"]], color=COLOURS[name], linewidth=1.5)
            axes.plot([place] * len(each["each"]), each["each"], "o", color=COLOURS[name], alpha=0.4, markersize=4)
    axes.set(xlabel="revisions", ylabel="gold reward")
    axes.set_xticks(range(REVISIONS + 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def written(out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    found: dict[str, list[Any]] = {}
    for name in (*METHODS, REF):
        for path in sorted(out.glob(f"record-{name}-*.json")):
            found.setdefault(name, []).append(json.loads(path.read_text(encoding="utf-8"))["rewards"])
    told = summary({name: np.array(rewards, dtype=float) for name, rewards in found.items()})
    write_results(RESULT, {**made_on(), "policies": told}, drawn(told), results)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = arguments(main.__doc__, "out").parse_args(argv)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name in (*METHODS, REF):
            path = out / f"record-{name}-{seed}.json"
            if not path.is_file():
                policy = (
                    reference_of(load_recipe(out / f"{METHODS[0]}.yaml")) if name == REF else trained(name, seed, out)
                )
                write_text(path, json.dumps(answered(policy, seed)))
            written(out, options.results)


if __name__ == "__main__":
    main()
