"""Tables and picture of `methods.py`: what each method reached, how far from the reference, and what became of held-out pairs.

Run: python scripts/studies/methods_report.py OUT_FOLDER scripts/bench/results/methods

Intervals over seeds are Student's, of the means of each seed. Those over beginnings hold the seeds fixed, whose mean is taken; a
family of them, each method's gold reward less that of DPO, holds at once (`eval.statistics.comparisons`).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from methods import METHODS
from sentiment_frontier_report import implicit_margins, sums
from study_parts.as_json import shown
from study_parts.policies import as_one_family
from study_parts.results import held_out_pairs, made_on

from eval.measures.diversity import distinct, self_bleu
from eval.pairs.calibration import debiased_error, margin_confidence
from eval.statistics.intervals import mean_estimate, over_seeds

matplotlib.use("Agg")
from matplotlib.figure import Figure

AGAINST = "dpo"
TOLD = {
    "gold": "gold reward", "proxy": "proxy reward", "kl": "KL to the reference, nats an answer", "chosen": "chosen answers' log-ratio, nats",
    "rejected": "rejected answers' log-ratio, nats", "accuracy": "held-out pairs ranked by the policy as by the proxy",
    "gold accuracy": "and as by the gold reward", "ece": "calibration error of σ(margin)", "distinct": "distinct bigrams", "self_bleu": "self-BLEU",
    "tokens": "tokens an answer", "entropy": "nats an answer by the policy itself",
    "gold since half": "gold reward, end less half way", "proxy since half": "proxy reward, end less half way", "kl at half": "KL half way",
    "gold at half": "gold reward half way",
}  # fmt: skip


def without_ends(rows: list[list[float]]) -> np.ndarray:
    """That of held-out answers without their end, which was cut and not written by anyone: the base has it at -19 nats."""
    return sums([row[:-1] for row in rows])


def of_run(record: dict[str, Any], reference: dict[str, Any], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """The measures of one run; those that are of each beginning as arrays."""
    end, half = record["end"], record.get("half")
    ratio = {
        side: without_ends(record["held_out"][side]) - without_ends(reference["held_out"][side])
        for side in ("chosen", "rejected")
    }
    told_apart = np.array([row["chosen_gold"] - row["rejected_gold"] for row in pairs])
    by_gold = (ratio["chosen"] - ratio["rejected"]) * np.sign(told_apart)
    found: dict[str, Any] = {
        "gold": np.array(end["gold"]), "proxy": np.array(end["proxy"]), "kl": sums(end["policy_logps"]) - sums(end["reference_logps"]),
        **ratio, "accuracy": 1.0 * (ratio["chosen"] > ratio["rejected"]), "gold accuracy": 1.0 * (by_gold[told_apart != 0] > 0),
        "tokens": np.array([float(len(row)) for row in end["policy_logps"]]), "entropy": -sums(end["policy_logps"]),
        "distinct": distinct(end["texts"], n=2), "self_bleu": self_bleu(end["texts"]),
    }  # fmt: skip
    method, settings, _ = METHODS[record["method"]]
    if method not in ("simpo", "dynamic_grpo", "copg"):
        of, beta = settings.get("divergence", "reverse_kl"), settings["beta"]
        margins = implicit_margins(ratio["chosen"], ratio["rejected"], of=of, beta=beta)
        found["ece"] = debiased_error(margin_confidence(margins)).value
    if half:
        found |= {f"{one} since half": np.array(end[one]) - np.array(half[one]) for one in ("gold", "proxy")}
        found["kl at half"] = sums(half["policy_logps"]) - sums(half["reference_logps"])
        found["gold at half"] = np.array(half["gold"])
    return found


SHARES = ("gold", "proxy", "accuracy", "gold accuracy", "gold since half", "proxy since half")


def over_items(measure: str, mine: list[Any], theirs: list[Any] | None = None) -> dict[str, Any]:
    """The mean over beginnings or pairs of what seeds reach on average, less another's of as many seeds; seeds are held fixed."""
    values = np.mean(mine, axis=0) - (0.0 if theirs is None else np.mean(theirs[: len(mine)], axis=0))
    span = 1.0 if measure in SHARES else np.inf
    return shown(mean_estimate(values, bounds=(-span, span)))


def by_seeds(values: list[float]) -> dict[str, Any]:
    """Each seed's, and what they say of others."""
    each = {"each": [round(float(one), 4) for one in values]}
    return each | shown(over_seeds(np.array(values))) if len(values) > 1 else each | {"value": each["each"][0], "n": 1}


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """By method: each measure over seeds, and less DPO's of the same seed; gold rewards less DPO's over beginnings, as one family."""
    told: dict[str, Any] = {name: {"seeds": len(each)} for name, each in runs.items()}
    for name, each in runs.items():
        for measure in TOLD:
            if measure not in each[0]:
                continue
            values = [float(np.mean(one[measure])) for one in each]
            told[name][measure] = by_seeds(values)
            arrays = [one[measure] for one in each]
            if np.ndim(arrays[0]):
                told[name][f"{measure}, over items"] = over_items(measure, arrays)
                if name != AGAINST and all(measure in one for one in runs[AGAINST]):
                    theirs = [one[measure] for one in runs[AGAINST]]
                    told[name][f"{measure}, less {AGAINST}, over items"] = over_items(measure, arrays, theirs)
            theirs = [float(np.mean(one[measure])) for one in runs[AGAINST] if measure in one]
            if name != AGAINST and len(theirs) >= len(values) > 1:
                gaps = np.array(values) - np.array(theirs[: len(values)])
                told[name][f"{measure}, less {AGAINST}"] = by_seeds(list(gaps))
    means = {name: np.mean([one["gold"] for one in each], axis=0) for name, each in runs.items()}
    gaps = {name: mean - means[AGAINST] for name, mean in means.items() if name != AGAINST}
    for name, one in as_one_family(gaps).items():
        told[name][f"gold, less {AGAINST}, over beginnings, as one family"] = one
    return told


def picture(told: dict[str, Any], start: float, path: Path) -> None:
    """Gold and proxy rewards against the KL, from half way to the end, and log-ratios of held-out pairs."""
    figure = Figure(figsize=(6.4, 13.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1)
    colours = matplotlib.colormaps["tab20"].colors
    for number, (name, one) in enumerate(told.items()):
        colour, marker = colours[number % 20], "os^Dv"[number % 5]
        at = [one["kl"]["value"]] if "kl at half" not in one else [one["kl at half"]["value"], one["kl"]["value"]]
        gold = (
            [one["gold"]["value"]]
            if "gold at half" not in one
            else [one["gold at half"]["value"], one["gold"]["value"]]
        )
        top.plot(at, gold, "-", color=colour, linewidth=1)
        top.plot(at[-1], gold[-1], marker, color=colour, label=name, markersize=6)
        middle.plot(one["proxy"]["value"], one["gold"]["value"], marker, color=colour, markersize=6)
        bottom.plot(one["rejected"]["value"], one["chosen"]["value"], marker, color=colour, markersize=6)
    top.axhline(start, color="#6e7781", linewidth=0.8, linestyle=":")
    top.set(xlabel="KL to the reference, nats an answer", ylabel="gold reward", title="from half way to the end")
    middle.set(xlabel="proxy reward, which is learned from", ylabel="gold reward", title="at the end")
    bottom.axhline(0, color="#6e7781", linewidth=0.8, linestyle=":")
    bottom.axvline(0, color="#6e7781", linewidth=0.8, linestyle=":")
    bottom.set(
        xlabel="rejected answers' log-ratio, nats",
        ylabel="chosen answers' log-ratio, nats",
        title="held-out pairs, at the end",
    )
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, help="without its ending")
    options = parser.parse_args()
    folder = options.runs / "records"
    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    pairs = held_out_pairs(options.runs)
    runs: dict[str, list[dict[str, Any]]] = {}
    spent = 0
    for name in METHODS:
        for path in sorted(folder.glob(f"{name}-[0-9].json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            spent += record["cpu_seconds"]
            runs.setdefault(name, []).append(of_run(record, reference, pairs))
    start = {one: shown(mean_estimate(np.array(reference["end"][one]), bounds=(0, 1))) for one in ("gold", "proxy")}
    told = summary(runs)
    result = {
        **made_on(spent),
        "measures": TOLD, "held-out pairs": len(pairs), "reference": start | {"distinct": distinct(reference["end"]["texts"], n=2)},
        "methods": told,
    }  # fmt: skip
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    picture(told, start["gold"]["value"], options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
