"""Table and picture of `sentiment_frontier.py`: gold reward against four measures of distance, calibration and diversity.

Every divergence looks best on its own axis, so all are drawn: KL(policy || reference) from the policy's samples,
KL(reference || policy) from the reference's, Jensen-Shannon and alpha (0.5) from both, and the policy's entropy. That of
chi-squared + KL is left out: its mean over 128 samples is that of its largest terms. Intervals are over prompts or pairs;
the two seeds are two runs, and nothing here says how others would fall.

Run: python scripts/bench/quality/sentiment_frontier_report.py OUT_FOLDER scripts/bench/results/sentiment_frontier
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
import torch

from align.losses.divergences import divergence
from align.losses.preference import Pair, f_dpo_loss
from eval.fronts.reward_divergence import Point, area, dominated_share, draw_frontier
from eval.measures.divergence import alpha_divergence, forward_kl, jensen_shannon, reverse_kl
from eval.measures.diversity import distinct, self_bleu
from eval.pairs.calibration import expected_calibration_error, margin_confidence, sequence_confidence
from eval.statistics.intervals import Estimate, mean_estimate

matplotlib.use("Agg")
from matplotlib.figure import Figure

AXES = {
    "reverse_kl": "KL(policy || reference), nats an answer",
    "forward_kl": "KL(reference || policy), nats an answer",
    "jensen_shannon": "Jensen-Shannon, nats an answer",
    "alpha": "alpha divergence (0.5)",
    "entropy": "entropy lost against the reference, nats an answer",
}
SMALLEST_GAP = 0.05
FAR = ("reverse_kl", "jensen_shannon", "chi_squared_kl")
COLOURS = {
    "reverse_kl": "#0969da", "forward_kl": "#cf222e", "jensen_shannon": "#2da44e", "alpha": "#8250df",
    "chi_squared_kl": "#bf8700",
}  # fmt: skip


def sums(rows: list[list[float]]) -> np.ndarray:
    """Log-probability of each answer, in nats."""
    return np.array([sum(row) for row in rows])


def means(rows: list[list[float]]) -> np.ndarray:
    """Mean log-probability of a token of each answer."""
    return np.array([sum(row) / max(len(row), 1) for row in rows])


def told_apart(record: dict) -> np.ndarray:
    """Which held-out pairs the gold reward tells apart."""
    gold = record["held_out_gold"]
    return np.array(gold["better"]) - np.array(gold["worse"]) >= SMALLEST_GAP


def margins(record: dict, reference: dict) -> np.ndarray:
    """Implicit-reward margins of held-out pairs under the run's own divergence and β, in nats."""
    job, kept = record["job"], told_apart(record)
    better, worse = (
        (sums(record["held_out"][side]) - sums(reference["held_out"][side]))[kept] for side in ("better", "worse")
    )
    return implicit_margins(better, worse, of=job["divergence"], beta=job["beta"])


def implicit_margins(chosen: np.ndarray, rejected: np.ndarray, *, of: str, beta: float) -> np.ndarray:
    """Implicit rewards of chosen less rejected answers under a divergence, in nats, from their log-ratios; alpha is at 0.5."""
    f = divergence(of, alpha=0.5 if of == "alpha" else None)
    pair = Pair(chosen=torch.tensor(chosen), rejected=torch.tensor(rejected))
    rewards = f_dpo_loss(pair, beta=beta, f=f, beta_scaling="raw").rewards
    return (rewards.chosen - rewards.rejected).numpy()


def measured(record: dict, reference: dict) -> dict:
    """All measures of one run."""
    job = record["job"]
    own = sums(record["policy_logps"]) - sums(record["reference_logps"])
    theirs = sums(record["policy_logps_of_reference_samples"]) - sums(reference["policy_logps"])
    margin = margins(record, reference)
    kept = told_apart(record)
    likely = sequence_confidence(*(means(record["held_out"][side])[kept] for side in ("better", "worse")))
    lost = sums(record["policy_logps"]) - sums(reference["policy_logps"])
    curvature = divergence(job["divergence"], alpha=0.5 if job["divergence"] == "alpha" else None).curvature
    return {
        **job,
        "beta_at_matched_curvature": job["beta"] * curvature,
        "gold": mean_estimate(np.array(record["gold"])),
        "gold_gain": mean_estimate(np.array(record["gold"]) - np.array(reference["gold"])),
        "proxy": mean_estimate(np.array(record["proxy"])),
        "reverse_kl": reverse_kl(own, theirs),
        "forward_kl": forward_kl(own, theirs),
        "jensen_shannon": jensen_shannon(own, theirs),
        "alpha": alpha_divergence(own, theirs, alpha=0.5),
        "entropy": mean_estimate(lost),
        "accuracy": mean_estimate((margin > 0).astype(float) + 0.5 * (margin == 0)),
        "ece_of_margin": expected_calibration_error(margin_confidence(margin)),
        "ece_of_likelihood": expected_calibration_error(likely),
        "distinct_2": distinct(record["texts"], n=2),
        "self_bleu": self_bleu(record["texts"]),
        "nll_last": float(np.mean([row["loss"] for row in record["log"][-5:]])),
    }


def whole(value: object) -> object:
    """Estimates by name, for JSON."""
    return {key: round(v, 5) for key, v in value._asdict().items()} if isinstance(value, Estimate) else value


def by_divergence(rows: list[dict], floor: float) -> dict:
    """Area under each divergence's frontier on each axis, both seeds apart, and the share that others beat beyond doubt.

    Forward KL and alpha stay so near to the reference that the others have no runs there: they have no area.
    """
    seeds = sorted({row["seed"] for row in rows})
    present = [name for name in COLOURS if any(row["divergence"] == name for row in rows)]
    found: dict = {}
    for axis in list(AXES)[:4]:  # entropy may rise
        points = [Point(r["divergence"], r[axis], r["gold"]) for r in rows]
        # up to the smallest of the largest costs, so that each has runs over the whole range
        budget = min(max(r[axis].value for r in rows if r["divergence"] == name) for name in FAR)
        found[axis] = {"budget": budget}
        for name in present:
            ours, theirs = ([p for p in points if (p.method == name) == own] for own in (True, False))
            found[axis][name] = {"dominated": dominated_share(ours, theirs)}
            if name in FAR:
                found[axis][name]["mean_gain"] = [
                    area(
                        [Point(name, r[axis], r["gold"]) for r in rows if (r["divergence"], r["seed"]) == (name, seed)],
                        budget=budget, floor=floor,
                    )
                    for seed in seeds
                ]  # fmt: skip
    return found


def at_matched_curvature(rows: list[dict], records: list[dict]) -> dict:
    """Gold reward of reverse KL over that of each divergence at the same scaled β, on the same prompts, seeds averaged."""
    gold: dict = {}
    for row in rows:
        [record] = [r for r in records if all(r["job"][key] == row[key] for key in ("divergence", "beta", "seed"))]
        gold.setdefault((row["divergence"], row["beta_at_matched_curvature"]), []).append(record["gold"])
    return {
        f"{name} at {beta}": whole(mean_estimate(np.mean(gold["reverse_kl", beta], axis=0) - np.mean(values, axis=0)))
        for (name, beta), values in gold.items()
        if name != "reverse_kl" and ("reverse_kl", beta) in gold
    }


def picture(rows: list[dict], reference: dict, path: Path) -> None:
    """Gold reward against each axis, and calibration and diversity against the reverse KL."""
    figure = Figure(figsize=(13, 12.5), layout="constrained")
    panels = figure.subplots(3, 3).ravel()
    start = float(np.mean(reference["gold"]))
    for axes, (axis, label) in zip(panels, AXES.items(), strict=False):
        points = [Point(r["divergence"], r[axis], r["gold"]) for r in rows]
        draw_frontier(axes, points, colours=COLOURS, cost=label, gain="gold reward")
        axes.axhline(start, color="#6e7781", linewidth=0.8, linestyle=":")
    others = {
        "proxy": "proxy reward", "ece_of_margin": "ECE of σ(margin)", "ece_of_likelihood": "ECE of likelihood (paper's)",
        "distinct_2": "distinct bigrams",
    }  # fmt: skip
    for axes, (key, label) in zip(panels[len(AXES) :], others.items(), strict=True):
        for name, colour in COLOURS.items():
            own = [r for r in rows if r["divergence"] == name]
            y = [r[key].value if isinstance(r[key], Estimate) else r[key] for r in own]
            axes.plot([r["reverse_kl"].value for r in own], y, "o", color=colour, markersize=4, label=name)
        axes.set(xlabel=AXES["reverse_kl"], ylabel=label)
    panels[0].legend(fontsize=8)
    figure.suptitle(
        "SmolLM2-135M, 20-token continuations, two seeds; 95% intervals over 128 prompts; dotted: the reference",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, help="without its ending")
    options = parser.parse_args()
    reference = json.loads((options.runs / "reference.json").read_text())
    names = sorted(p for p in options.runs.glob("*-*.json"))
    records = [json.loads(path.read_text()) for path in names]
    rows = sorted((measured(r, reference) for r in records), key=lambda r: (r["divergence"], r["beta"], r["seed"]))
    first = records[0]
    result = {
        "what": (
            f"{first['steps']} steps of {first['pairs_per_step']} pairs of {first['training_pairs']}, learning rate "
            f"{first['learning_rate']}, LoRA r=16, bf16 autocast; {len(first['prompts'])} prompts, one answer each, "
            f"temperature 1; {int(told_apart(first).sum())} held-out pairs"
        ),
        "machine": f"{platform.machine()}, one thread a run, beside other work",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "reference": {
            "gold": whole(mean_estimate(np.array(reference["gold"]))),
            "proxy": whole(mean_estimate(np.array(reference["proxy"]))),
            "distinct_2": distinct(reference["texts"], n=2), "self_bleu": self_bleu(reference["texts"]),
            "ece_of_likelihood": expected_calibration_error(
                sequence_confidence(*(means(reference["held_out"][s])[told_apart(reference)] for s in ("better", "worse")))
            ),
        },
        "runs": [{key: whole(value) for key, value in row.items()} for row in rows],
        "reverse_kl_minus_other": at_matched_curvature(rows, records),
        "frontiers": by_divergence(rows, float(np.mean(reference["gold"]))),
        "seconds_of_a_run": [round(r["seconds"]["all"]) for r in records],
    }  # fmt: skip
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    picture(rows, reference, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
