"""Reports on a round and on all rounds: rewards, lengths, diversity, pairs, and how far the policy has moved."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate import PartialState

from align.data.loading import DataSource, read
from align.data.rows.scored import read_scored, text_of
from align.files import write_text
from align.recipe.loading import Recipe
from align.runs.contents import METRICS_FILE, REPORT_FILE
from align.runs.directory import read_metrics

from .plan import Place

PAGE = "report.md"
SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "log_ratio/chosen", "log_ratio/rejected")


def round_report(recipe: Recipe, place: Place) -> dict[str, Any]:
    """Write `report.json` of a round. Its answers are those of the policy that the round before left.

    Figures of answers are means over prompts with the 95% interval of a mean (normal), so that answers to one prompt count
    as one. Scores of a judge that compares are relative to the answers of their own prompt and do not tell rounds apart.
    """
    if not PartialState().is_main_process:
        return {}
    rounds: Any = recipe.rounds
    rows = read(DataSource(str(place.scores))).to_list()
    weights = rounds.score.weights or None
    mine = [[k for k, who in enumerate(row["sources"]) if who == "policy"] for row in rows]
    rewards, lengths, distinct = [], [], []
    for row, own in zip(rows, mine, strict=True):
        scored = read_scored(row, weights, None)
        given = [float(r) for k in own if (r := scored.rewards[k]) is not None and math.isfinite(r)]
        texts = [text_of(scored.completions[k]) for k in own]
        rewards += [float(np.mean(given))] if given else []
        lengths += [float(np.mean([len(text) for text in texts]))] if texts else []
        distinct += [len(set(texts)) / len(texts)] if texts else []
    logged: dict[str, Any] = {}
    for record in read_metrics(place.trained / METRICS_FILE):
        logged |= {name: record[name] for name in SHOWN if name in record}
    report = {
        "round": place.number,
        "answers_of": f"the policy after {place.number - 1} rounds",
        "reward": estimate(rewards),
        "characters": estimate(lengths),
        "distinct_share": estimate(distinct),
        "training": logged,
    }
    write_text(place.folder / REPORT_FILE, json.dumps(report, indent=1) + "\n")
    return {"prompts": len(rows)}


def estimate(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and 95% interval over independent items; None without any."""
    if not values:
        return None
    mean, n = float(np.mean(values)), len(values)
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    return {
        "value": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "n": n,
    }


def write_page(recipe: Recipe, run: Any) -> None:
    """`report.md`: a row for each round."""
    rounds: Any = recipe.rounds
    names = ("reward", "characters", "distinct_share")
    lines = ["# Report over rounds", "", "Answers of a round are those of the policy before it learns from them.", ""]
    lines += [f"| round | {' | '.join(names)} | {' | '.join(SHOWN)} |", "|" + "---|" * (1 + len(names) + len(SHOWN))]
    for number in range(1, rounds.count + 1):
        report = json.loads((Place(run, number).folder / REPORT_FILE).read_text(encoding="utf-8"))
        cells = [_shown(report[name]) for name in names]
        cells += [
            f"{report['training'][name]:.4g}" if isinstance(report["training"].get(name), float) else ""
            for name in SHOWN
        ]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    write_text(run / PAGE, "\n".join(lines) + "\n")


def _shown(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    between = "" if found["low"] is None else f" [{found['low']:.4g}, {found['high']:.4g}]"
    return f"{found['value']:.4g}{between}"
