"""What the quickstart reports, seed by seed, and the same with η = 0, which is DPO.

Run: python scripts/studies/seeds.py OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again: OUT_FOLDER/quickstart/seed-0 may
be a copy of runs/quickstart. After every run seeds.json is written anew. Estimates are those of each run's report.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
from expected import report_of
from study_parts.results import arguments, made_on

from align.files import write_text
from eval.statistics.intervals import over_seeds

RESULT = "seeds"
RECIPES: dict[str, tuple[str, list[str]]] = {  # recipe, and what is overridden
    "quickstart": ("quickstart", []),
    "quickstart-dpo": ("quickstart", ["train.eta=0"]),
}


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """By recipe: the estimates of each seed, and each estimate over seeds, where all have it."""
    told: dict[str, Any] = {}
    for name, reports in found.items():
        told[name] = {"by seed": {str(seed): rounded(one) for seed, one in enumerate(reports)}}
        if len(reports) > 1:
            values = {key: [one.get(key, {}).get("value") for one in reports] for key in reports[0]}
            over = {key: over_seeds(np.array(some))._asdict() for key, some in values.items() if None not in some}
            told[name]["over seeds"] = rounded(over)
    return told


def rounded(estimates: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """To four digits."""
    return {
        name: {key: round(value, 4) if isinstance(value, float) else value for key, value in one.items()}
        for name, one in estimates.items()
    }


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = arguments(main.__doc__, "out").parse_args(argv)
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name, (recipe, words) in RECIPES.items():
            run = options.out.absolute() / name / f"seed-{seed}"
            found.setdefault(name, []).append(report_of(recipe, words, seed, run))
            told = {**made_on(), "recipes": summary(found)}
            options.results.mkdir(parents=True, exist_ok=True)
            write_text(options.results / f"{RESULT}.json", json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
