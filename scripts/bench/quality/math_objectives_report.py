"""Table and pictures of `math_objectives.py`: where each weighting rule ends, its front and its hypervolume.

Objectives are accuracy, the share of the allowed tokens that an answer does not use, and clarity; all in [0, 1], and the
worst corner of every volume is 0. A rule's front is over its runs half-way and at the end.

Run: python scripts/bench/quality/math_objectives_report.py OUT_FOLDER scripts/bench/results/math_objectives
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
from math_objectives import RULES

from align.weighting.archive import hypervolume, nondominated
from eval.fronts.indicators import drawn_means, volume_over_prompts, volume_over_seeds
from eval.report.plots_fronts import front_picture, weights_picture
from eval.statistics.intervals import mean_estimate

matplotlib.use("Agg")

OBJECTIVES = ("accuracy", "tokens saved", "clarity")
WORST = np.zeros(len(OBJECTIVES))


def scores(record: dict, step: str) -> np.ndarray:
    """Mean over the samples of each problem; shape (problems, objectives)."""
    return np.array(record["points"][step], dtype=float).mean(axis=2).T


def rounded(values: object) -> object:
    """Numbers that a reader can take in."""
    return np.round(np.array(values, dtype=float), 4).tolist()


def whole(estimate: object) -> dict:
    """An estimate by name."""
    return {key: round(value, 4) for key, value in estimate._asdict().items()}  # type: ignore[attr-defined]


def spread(metrics: list[dict]) -> dict[str, list[float]]:
    """Of each objective the smallest weight over the steps, the mean, the last and the largest."""
    steps = [row for row in metrics if any(key.startswith("weights/") for key in row)]
    names = [key for key in steps[0] if key.startswith("weights/")]
    values = {key.removeprefix("weights/"): [row[key] for row in steps] for key in names}
    return {name: rounded([min(row), np.mean(row), row[-1], max(row)]) for name, row in values.items()}  # type: ignore[misc]


def moves(metrics: list[dict]) -> bool:
    """Whether the weights are not the same all the time; what scales all alike leaves them so."""
    return any(low < high for low, _, _, high in spread(metrics).values())


def differences(ends: dict[str, np.ndarray], first: str, second: str) -> dict:
    """Hypervolume of `first` less that of `second` at the end, mean over seeds, and its interval over problems.

    Both are resampled together, so what is hard for both cancels. It says nothing of other seeds.
    """

    def volume(points: np.ndarray) -> float:
        return float(np.mean([hypervolume(point[None], WORST) for point in points]))

    both = np.concatenate([ends[first], ends[second]])
    half = len(ends[first])
    drawn = drawn_means(both, rng=np.random.default_rng(0), draws=2000)
    draws = np.array([volume(d[:half]) - volume(d[half:]) for d in drawn.means + drawn.errors])
    value = volume(ends[first].mean(axis=1)) - volume(ends[second].mean(axis=1))
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"first": first, "second": second, "value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, help="without its ending")
    options = parser.parse_args()
    records = [json.loads(path.read_text()) for path in sorted(options.runs.glob("*-[0-9].json"))]
    before = json.loads((options.runs / "warm.json").read_text())
    steps = sorted(records[0]["points"], key=int)
    rules = [rule for rule in RULES if any(record["job"]["rule"] == rule for record in records)]
    of = {rule: [record for record in records if record["job"]["rule"] == rule] for rule in rules}
    ends = {rule: np.stack([scores(record, steps[-1]) for record in of[rule]]) for rule in rules}
    fronts = {
        rule: [np.stack([scores(record, step).mean(axis=0) for step in steps]) for record in of[rule]] for rule in rules
    }
    compared = [rule for rule in rules if len(of[rule]) > 1]
    table = {}
    for rule in rules:
        every = np.concatenate(fronts[rule])
        last = [front[-1:] for front in fronts[rule]]
        table[rule] = {
            "end": {
                name: whole(mean_estimate(ends[rule][:, :, k].mean(axis=0)))
                for k, name in enumerate(OBJECTIVES)
            },
            "end_by_seed": rounded(ends[rule].mean(axis=1)),
            **(
                {
                    "volume_at_end_over_seeds": whole(volume_over_seeds(last, WORST)),
                    "volume_of_front_over_seeds": whole(volume_over_seeds(fronts[rule], WORST)),
                }
                if rule in compared
                else {}
            ),
            "volume_of_front_over_problems": whole(
                volume_over_prompts(
                    np.stack([scores(r, step) for r in of[rule] for step in steps]), WORST, resamples=2000
                )
            ),
            "front": rounded(every[nondominated(every)]),
            "weights": [spread(record["metrics"]) for record in of[rule]],
            "minutes_a_run": [round(record["seconds"] / 60, 1) for record in of[rule]],
        }  # fmt: skip
    start = scores(before, "0")
    result = {
        "what": f"steps {', '.join(steps)}; {start.shape[0]} held-out problems, {len(before['points']['0'][0][0])} answers each",
        "objectives": OBJECTIVES, "machine": records[0]["machine"], "versions": records[0]["versions"],
        "before": {name: whole(mean_estimate(start[:, k])) for k, name in enumerate(OBJECTIVES)},
        "volume_before": round(hypervolume(start.mean(axis=0)[None], WORST), 4),
        "rules": table, "differences_at_end": [differences(ends, *pair) for pair in combinations(compared, 2)],
    }  # fmt: skip
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    pictures = {
        "front": front_picture({rule: fronts[rule] for rule in compared}, OBJECTIVES),
        "weights": weights_picture(
            {
                f"{rule} {record['job']['seed']}": record["metrics"]
                for rule in compared
                if moves(of[rule][0]["metrics"])
                for record in of[rule]
            }
        ),
    }  # fmt: skip
    for name, png in pictures.items():
        if png is not None:
            options.out.with_name(f"{options.out.name}_{name}.png").write_bytes(png)


if __name__ == "__main__":
    main()
