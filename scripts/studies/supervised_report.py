"""Tables and picture of `supervised.py`: what each condition reached, and each method less SFT on the same rows.

Run: python scripts/studies/supervised_report.py OUT_FOLDER scripts/bench/results/supervised

Conditions have the seeds that were run, and are held against SFT of the same seeds. Intervals over problems hold the seeds fixed, whose
mean is taken; the differences of one measure on one set are a family, whose intervals hold at once (`eval.statistics.comparisons`). Those
over seeds are Student's.
"""

import argparse
import json
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from study_parts.as_json import gaps, shown
from study_parts.policies import as_one_family
from study_parts.results import made_on
from supervised import AGAINST, CONDITIONS, SETS, WARM, WRONG

from eval.statistics.intervals import mean_estimate, over_seeds

matplotlib.use("Agg")

MEASURES = {
    "accuracy": "share of greedy answers that are right",
    "given": "mean probability of the equation a problem is given with, at temperature 1",
}
Runs = dict[tuple[str, str], list[dict[str, Any]]]


def table(runs: list[dict[str, Any]], name: str, measure: str) -> np.ndarray:
    """A measure on one set, of shape (seeds, problems)."""
    return np.array([one[name][measure] for one in runs], dtype=float)


def reached(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Every measure on every set: each seed's mean, and their mean over problems."""
    told: dict[str, Any] = {"seeds": len(runs)}
    for measure in MEASURES:
        for name in SETS:
            found = table(runs, name, measure)
            told[f"{measure}, {name}"] = {"each": rounded(found.mean(axis=1))} | shown(
                mean_estimate(found.mean(axis=0), bounds=(0, 1))
            )
    return told


def less(runs: Runs) -> dict[str, Any]:
    """Each method's measures less those of SFT on the same rows, over problems as one family, and over seeds."""
    told: dict[str, Any] = {}
    others = [one for one in runs if one[1] != AGAINST and (one[0], AGAINST) in runs]
    if not others:
        return told
    for measure in MEASURES:
        for name in SETS:
            found = {
                ", ".join(one): gaps(*(table(runs[of], name, measure) for of in (one, (one[0], AGAINST))))
                for one in others
            }
            for condition, one in as_one_family({key: gap.mean(axis=0) for key, gap in found.items()}).items():
                by_seed, tested = found[condition].mean(axis=1), ("p", "detectable")
                told.setdefault(condition, {})[f"{measure}, {name}"] = {
                    "each": rounded(by_seed),
                    "over seeds": shown(over_seeds(by_seed)) if len(by_seed) > 1 else None,
                    "over problems, as one family": {key: value for key, value in one.items() if key not in tested},
                    **{key: one[key] for key in tested},
                }
    return told


def rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def drawn(told: dict[str, Any]) -> Figure:
    """Accuracy of every condition with its interval over problems, its seeds as dots; a panel a set."""
    figure = Figure(figsize=(8, 3.4), dpi=130, layout="constrained")
    colours = {"cold": "#9a6700", "clean": "#1f6feb", "noisy": "#bf3989"}
    for axes, (name, said) in zip(figure.subplots(1, len(SETS), sharey=True), SETS.items(), strict=True):
        for place, (condition, one) in enumerate(told.items()):
            found, colour = one[f"accuracy, {name}"], colours.get(condition.split(", ")[0], "#6e7781")
            axes.plot([found["low"], found["high"]], [place] * 2, color=colour, linewidth=1.5)
            axes.plot(found["each"], [place] * len(found["each"]), "o", color=colour, alpha=0.4, markersize=4)
            axes.plot(found["value"], place, "|", color=colour, markersize=14)
        axes.set(title=said, xlabel="share of greedy answers that are right", xlim=(0, None))
        axes.set_yticks(range(len(told)), list(told))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    return figure


def main(argv: list[str] | None = None) -> None:
    """Write the figures and the picture."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, help="without its ending")
    options = parser.parse_args(argv)

    def read(*name: str) -> Any:
        return json.loads(options.runs.joinpath(*name).read_text(encoding="utf-8"))

    records, runs = options.runs / "records", {}
    for one in CONDITIONS:
        for seed in count():
            if not (records / f"{'-'.join(one)}-{seed}.json").is_file():
                break
            runs.setdefault(one, []).append(read("records", f"{'-'.join(one)}-{seed}.json"))
    if not runs:
        parser.error(f"{records} has no run; run supervised.py")
    beside = [name for name in ("base", WARM) if (records / f"{name}.json").is_file()]
    every = {name: [read("records", f"{name}.json")] for name in beside} | {
        ", ".join(one): each for one, each in runs.items()
    }
    spent = sum(one["cpu_seconds"] for each in every.values() for one in each)
    told = {
        **made_on(spent, of=""),
        "measures": MEASURES, "sets": SETS, "share of wrong rows": WRONG,
        "rates": {path.stem.removeprefix("rate-"): read(path.name) for path in sorted(options.runs.glob("rate-*.json"))},
        "reached": {name: reached(each) for name, each in every.items()}, f"less {AGAINST}": less(runs),
    }  # fmt: skip
    options.out.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    drawn(told["reached"]).savefig(options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
