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
from align.intervals import UNBOUNDED, claimed, mean_estimate
from align.recipe.loading import Recipe
from align.recipe.scores import ScoreConfig
from align.recipe.sections import GIVE_REWARDS
from align.rewards import REWARDS
from align.runs.contents import METRICS_FILE, REPORT_FILE
from align.runs.directory import read_metrics

from .plan import Place

PAGE = "report.md"
SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "log_ratio/chosen", "log_ratio/rejected")


def round_report(recipe: Recipe, place: Place) -> dict[str, Any]:
    """Write `report.json` of a round. Its answers are those of the policy that the round before left.

    Figures of answers are means over prompts with the interval of `align.intervals.mean_estimate`, so that answers to one
    prompt count as one. Scores of a judge that compares are relative to the answers of their own prompt and do not tell
    rounds apart.
    """
    if not PartialState().is_main_process:
        return {}
    rounds: Any = recipe.rounds
    rows = read(DataSource(str(place.scores))).to_list()
    weights = rounds.score.weights or (dict.fromkeys(rounds.score.names(), 1.0) if rounds.in_context else None)
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
        "answers_of": f"the policy after {place.number - 1} round{'s' * (place.number != 2)}",
        "reward": estimate(rewards, reward_bounds(rounds.score)),
        "characters": estimate(lengths, (0.0, math.inf)),
        "distinct_share": estimate(distinct, (0.0, 1.0)),
        "training": logged,
    }
    write_text(place.folder / REPORT_FILE, json.dumps(report, indent=1) + "\n")
    return {"prompts": len(rows)}


def reward_bounds(score: ScoreConfig) -> tuple[float, float]:
    """The least and the greatest that the weighted score of an answer can be; infinite where a scorer has no bounds."""
    ends = [REWARDS[name][1:3] if name in REWARDS else UNBOUNDED for name in score.rewards]
    compared = UNBOUNDED if score.of == "log_odds" else (0.0, 1.0)
    for judge in score.judges.values():
        known = REWARDS[judge.reward][1:3] if judge.reward and judge.reward in REWARDS else UNBOUNDED
        ends.append(known if judge.kind == "reward" else UNBOUNDED if judge.kind in GIVE_REWARDS else compared)
    low = high = 0.0
    for name, (least, most) in zip(score.names(), ends, strict=True):
        weight = score.weights.get(name, 0.0) if score.weights else 1.0  # alone, or added up where none is said
        sides = sorted((weight * least, weight * most)) if weight else (0.0, 0.0)
        low, high = low + sides[0], high + sides[1]
    return low, high


def estimate(values: Sequence[float], bounds: tuple[float, float] = UNBOUNDED) -> dict[str, Any] | None:
    """Mean and 95% interval over independent items; None without any. An end that they do not bound is null."""
    if not values:
        return None
    mean, low, high = float(np.mean(values)), -math.inf, math.inf
    if len(values) > 1:
        _, low, high, _ = claimed(mean_estimate(np.array(values), bounds=bounds))
    ends = [float(end) if math.isfinite(end) else None for end in (low, high)]
    return {"value": mean, "low": ends[0], "high": ends[1], "n": len(values)}


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
    ends = [found["low"], found["high"]]
    if ends == [None, None]:
        return f"{found['value']:.4g}"
    low, high = (sign + "inf" if end is None else f"{end:.4g}" for sign, end in zip("-+", ends, strict=True))
    return f"{found['value']:.4g} [{low}, {high}]"
