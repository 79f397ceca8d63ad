"""Tables and picture of the bench of instructions: what each method keeps of its constraints, and what that costs.

Run: python scripts/studies/checked/instructions_report.py OUT_FOLDER [-o RESULTS]

Intervals over requests hold the seeds fixed, whose mean is taken; those over seeds are Student's. The differences from DPO in constraints
kept are one family: over requests, their intervals hold at once.
"""

import argparse
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from instructions import FORMS, METHODS
from matplotlib.figure import Figure
from sentiment_frontier_report import sums
from study_parts.as_json import gaps, over
from study_parts.policies import as_one_family, compared, points
from study_parts.results import RESULTS, made_on, records_of, reference_record, spent_on, write_results

from eval.measures.diversity import distinct

AGAINST, RESULT, ENDS = "dpo", "instructions", 2
SHARE, FREE = (0.0, 1.0), (-np.inf, np.inf)
MEASURES: dict[str, tuple[str, tuple[float, float]]] = {
    "kept": ("both constraints kept", SHARE),
    "short": ("less than 15 words", SHARE),
    "form": ("the form kept", SHARE),
    "kept, unseen": ("both kept, of a form that training has not", SHARE),
    "form, unseen": ("a form kept that training has not", SHARE),
    "relevance": ("relevance to the request, cosine", SHARE),
    "finished": ("answers that end within 40 tokens", SHARE),
    "tokens": ("tokens an answer", (0.0, np.inf)),
    "kl": ("KL to the reference, nats an answer", FREE),
    "chosen": ("chosen answers' log-ratio, nats", FREE),
    "rejected": ("rejected answers' log-ratio, nats", FREE),
}
BOUNDS = {name: bounds for name, (_, bounds) in MEASURES.items()}
COLOURS = {
    "dpo": "#9a6700", "rpo 0.5": "#1f6feb", "sft": "#6e7781", "kto": "#8250df", "dpo in rounds": "#cf222e", "grpo": "#1a7f37",
    "jensen_shannon": "#bf3989", "ipo": "#0a7d91",
}  # fmt: skip


def without_end(rows: list[list[float]]) -> np.ndarray:
    """That of answers without the two tokens that the template puts at their end: of a cut answer nobody wrote them."""
    return sums([row[:-ENDS] for row in rows])


def of_run(record: dict[str, Any], reference: dict[str, Any]) -> dict[str, np.ndarray]:
    """The measures of one run, request by request or pair by pair."""
    learnt, unseen = (np.array(record[part]["kept"], dtype=float) for part in ("learnt", "unseen"))
    one = record["learnt"]
    ratios = {
        side: without_end(record["held_out"][side]) - without_end(reference["held_out"][side])
        for side in ("chosen", "rejected")
    }
    return {
        "kept": learnt.all(axis=1) * 1.0, "short": learnt[:, 0], "form": learnt[:, 1],
        "kept, unseen": unseen.all(axis=1) * 1.0, "form, unseen": unseen[:, 1],
        "relevance": np.array(one["relevance"]), "finished": np.array(one["finished"], dtype=float),
        "tokens": np.array([float(len(row)) for row in one["policy_logps"]]),
        "kl": sums(one["policy_logps"]) - sums(one["reference_logps"]), **ratios,
    }  # fmt: skip


def by_form(records: list[dict[str, Any]], kinds: list[str]) -> dict[str, float]:
    """The share of answers that keep a form, by its kind, over requests and seeds."""
    held = np.mean([np.array(one["learnt"]["kept"], dtype=float)[:, 1] for one in records], axis=0)
    return {kind: round(float(held[np.array(kinds) == kind].mean()), 4) for kind in dict.fromkeys(kinds)}


def drawn(told: dict[str, Any], start: dict[str, Any]) -> Figure:
    """What is kept against the KL, and the relevance against what is kept."""
    figure = Figure(figsize=(9, 4), dpi=130, layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, 2), (("kl", "kept"), ("kept", "relevance")), strict=True):
        before = start[x]["over prompts"]["value"], start[y]["over prompts"]["value"]
        axes.plot(*before, "k+", markersize=10, label="before")
        points(axes, told, x, y, COLOURS)
        axes.set(xlabel=MEASURES[x][0], ylabel=MEASURES[y][0])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False)
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    reference = reference_record(options.runs)
    records = records_of(options.runs, METHODS)
    runs = {name: [of_run(one, reference) for one in some] for name, some in records.items()}
    found = {name: {key: np.array([one[key] for one in some]) for key in MEASURES} for name, some in runs.items()}
    before, told = of_run(reference, reference), compared(found, AGAINST, BOUNDS)
    for name, measures in found.items():
        for measure, rows in measures.items():
            low, high = BOUNDS[measure]
            told[name][f"{measure}, less that before"] = over(rows - before[measure], (low - high, high - low))
    others = {name: rows["kept"] for name, rows in found.items() if name != AGAINST}
    less = {name: gaps(rows, found[AGAINST]["kept"]).mean(axis=0) for name, rows in others.items()}
    for name, one in as_one_family(less).items():
        told[name][f"kept, less that of {AGAINST}, as one family"] = one
    kinds = [kind for kind, _ in zip(cycle(FORMS["learnt"]), reference["learnt"]["kept"], strict=False)]
    for name, some in records.items():
        told[name]["form, by kind"] = by_form(some, kinds)
        told[name]["distinct bigrams, by seed"] = [round(distinct(one["learnt"]["texts"], n=2), 4) for one in some]
    start = {key: over(row[None], BOUNDS[key]) for key, row in before.items()}
    write_results(RESULT, {
        **made_on(spent_on(records), of=" for training and answers"),
        "measures": {name: said for name, (said, _) in MEASURES.items()}, "reference": start, "methods": told,
    }, drawn(told, start), options.results)  # fmt: skip


if __name__ == "__main__":
    main()
