"""Asks whether one answer to a prompt, held against what that prompt earned before, teaches more than groups of as many answers.

Run: python scripts/studies/reviews/single_stream.py DATA_FOLDER OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; what was
killed goes on, and an OUT_FOLDER of `methods.py` lends its answers. After every policy single_stream.json and single_stream.png are
written anew.

Model, beginnings of reviews and classifiers are those of `methods.py`. Policies learn online from the weak classifier (the proxy), 150
steps of 8 answers of at most 20 tokens, on 150 beginnings, so that each is drawn about eight times where it has one answer a step and
twice where it has four. Conditions differ in what an answer is held against: `groups` the four answers to its prompt (GRPO's), `single
stream` the value of its prompt (rho from the drift, prompts by uncertainty, a prior of 8 samples at 0.5). The gold reward is the better classifier's, on 256 other beginnings.

After Xu and Ding 2025, "Single-stream policy optimization" (arXiv:2509.13232), which begins each value with 8 answers; here all begin at 0.5,
so that no answers are sampled beside those that are learnt from.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import methods
from study_parts.policies import MEASURES, compared, ends_of, gold_against_kl
from study_parts.results import (
    arguments,
    before_training,
    made_on,
    once,
    records_of,
    spent_on,
    write_results,
)

from align.files import write_rows
from align.sampling.policy import Policy, policy_of

STEPS, BEGINNINGS, AGAINST, RESULT = 150, 150, "groups", "single_stream"
STREAM = {"rho": "kl", "prompts": "uncertain", "prior_count": 8.0}
CONDITIONS: dict[str, tuple[str, dict[str, Any]]] = {  # method, and what an answer is held against
    "groups": ("dynamic_grpo", {"estimator": "group", "num_generations": 4}),
    "single stream": ("reinforce", {"estimator": "single_stream", "estimator_options": STREAM, "num_generations": 1}),
}
COLOURS = {"groups": "#9a6700", "single stream": "#1f6feb"}


def recipe_of(name: str, out: Path) -> Path:
    """The recipe of a policy, on disk, without seed and folder."""
    method, settings = CONDITIONS[name]
    recipe = methods.recipe_of("grpo", out)
    common = {key: value for key, value in recipe["train"].items() if key not in ("estimator", "num_generations")}
    train = common | {"max_steps": STEPS, "save_steps": STEPS, "beta": 0.0} | settings
    rows = {"train": {"path": str(out / "few-prompts.jsonl")}}
    return methods.recipe_file("grpo", out, name, method=method, train=train, data=rows)


def trained(name: str, seed: int, out: Path) -> Policy:
    """A policy; what is there is not trained again, what was killed goes on."""
    run, recipe = out / methods.as_file(name) / f"seed-{seed}", recipe_of(name, out)
    methods.finished(recipe, run, [f"train.seed={seed}"])
    return policy_of(str(run))


def written(out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    records, start = records_of(out, CONDITIONS), before_training(out)
    told = compared(ends_of(records), AGAINST)
    tokens = {
        name: [round(sum(map(len, one["end"]["policy_logps"])) / len(one["end"]["texts"]), 2) for one in some]
        for name, some in records.items()
    }
    result = {
        **made_on(spent_on(records), of=" for training and answers"),
        "measures": MEASURES, "reference": start, "tokens an answer at the end, by seed": tokens, "policies": told,
    }  # fmt: skip
    write_results(RESULT, result, gold_against_kl(told, start, COLOURS), results)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = arguments(main.__doc__, "data", "out").parse_args(argv)
    out = options.out.absolute()
    ref = methods.begun(options.data, out)
    rows = (out / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    write_rows([json.loads(row) for row in rows[:BEGINNINGS]], out / "few-prompts.jsonl", replace=True)
    for seed in range(options.seeds):
        for name in CONDITIONS:
            once(
                out / "records" / f"{name}-{seed}.json",
                lambda name=name, seed=seed: methods.record({"end": trained(name, seed, out)}, ref, options.data, out),
            )
            written(out, options.results)


if __name__ == "__main__":
    main()
