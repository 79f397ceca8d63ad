"""Figures and picture of `tool_calls.py`: what is answered rightly against how often was searched."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from align.fronts.run import REF
from eval.report.plots import COLOURS, MARKERS, png
from eval.statistics.intervals import mean_estimate, over_seeds
from eval.statistics.shares import share_difference, share_estimate
from study_parts.as_json import shown

STATED, HIDDEN = "stated", "hidden"
"""Kinds of question: with the fact that they ask for, and without."""


class Found(NamedTuple):
    """What the policies of a method reached with a seed."""

    names: list[str]
    tables: np.ndarray
    """What the answerer said right (0 or 1) and calls, shape (policies, questions, 2)."""


def summary(every: dict[tuple[int, str], Found], kinds: np.ndarray) -> dict[str, Any]:
    """All figures of what is there: of each policy with each seed, over seeds, and between the two methods."""
    told: dict[str, Any] = {"answerer": {}, "seeds": {}, "methods": {}}
    for (seed, name), found in every.items():
        told["seeds"].setdefault(str(seed), {})[name] = {
            who: figures(rows[None], kinds) for who, rows in zip(found.names, found.tables, strict=True)
        }
    names = list(dict.fromkeys(name for _, name in every))
    stacked = {name: np.stack([found.tables for (_, other), found in every.items() if other == name]) for name in names}
    for name, tables in stacked.items():
        policies = next(found.names for (_, other), found in every.items() if other == name)
        told["methods"][name] = {who: figures(tables[:, k], kinds) for k, who in enumerate(policies)}
    if len(names) > 1:
        first, second = (stacked[name] for name in names)
        n = min(len(first), len(second))
        told["stratified minus group"] = {
            who: gaps(second[:n, k] - first[:n, k]) for k, who in enumerate(told["methods"][names[0]]) if who != REF
        }
    return told


def figures(tables: np.ndarray, kinds: np.ndarray) -> dict[str, Any]:
    """Of one policy, of tables of shape (seeds, questions, 2): in all and by kind of question, with intervals over questions."""
    seeds, questions, _ = tables.shape
    told: dict[str, Any] = {"seeds": seeds}
    for name, kept in {"all": kinds == kinds, STATED: kinds == STATED, HIDDEN: kinds == HIDDEN}.items():
        right, calls = (tables[:, kept, column] for column in (0, 1))
        groups = np.tile(np.arange(questions)[kept], seeds)
        told[name] = {"right": shown(share_estimate(right.ravel(), groups)), "calls": shown(mean_estimate(calls.ravel(), groups)),
                      "searched": shown(share_estimate((calls > 0).astype(float).ravel(), groups))}  # fmt: skip
        if seeds > 1:
            told[name] |= {"right, over seeds": shown(over_seeds(right.mean(axis=1))),
                           "calls, over seeds": shown(over_seeds(calls.mean(axis=1)))}  # fmt: skip
    return told


def gaps(differences: np.ndarray) -> dict[str, Any]:
    """Differences of two policies that answered the same questions, shape (seeds, questions, 2)."""
    seeds, questions, _ = differences.shape
    groups = np.tile(np.arange(questions), seeds)
    told = {"right": shown(share_difference(differences[..., 0].ravel(), groups)),
            "calls": shown(mean_estimate(differences[..., 1].ravel(), groups))}  # fmt: skip
    if seeds > 1:
        told |= {
            f"{what}, over seeds": shown(over_seeds(differences[..., column].mean(axis=1)))
            for column, what in enumerate(told)
        }
    return told


def picture(told: dict[str, Any]) -> bytes:
    """Right answers against calls: means over seeds with intervals over questions, and each seed small."""
    drawn = Figure(figsize=(6.4, 4.6), dpi=120, layout="constrained")
    axes = drawn.subplots()
    for (name, found), colour, marker in zip(told["methods"].items(), COLOURS, MARKERS, strict=False):
        points = sorted((one["all"] for who, one in found.items() if who != REF), key=lambda one: one["calls"]["value"])
        x, y = ([one[what]["value"] for one in points] for what in ("calls", "right"))
        bars = [[abs(one["right"]["value"] - one["right"][end]) for one in points] for end in ("low", "high")]
        axes.errorbar(x, y, yerr=bars, color=colour, marker=marker, linewidth=1, capsize=2, label=name)
        for seed in told["seeds"].values():
            small = [one["all"] for who, one in seed.get(name, {}).items() if who != REF]
            x, y = ([one[what]["value"] for one in small] for what in ("calls", "right"))
            axes.plot(x, y, color=colour, marker=marker, markersize=3, linestyle="none", alpha=0.5)
    before = next(iter(told["methods"].values()))[REF]["all"]
    axes.plot(
        before["calls"]["value"],
        before["right"]["value"],
        color="0.4",
        marker="*",
        markersize=12,
        linestyle="none",
        label="before",
    )
    ends = [told["answerer"][what]["value"] for what in ("without a search", "with the fact")]
    could = {
        ":": (0.5, "searching where it helps alone, for a share of these"),
        "--": (1, "searching whatever the question, for a share of all"),
    }
    for style, (calls, label) in could.items():
        axes.plot([0, calls], ends, color="0.6", linestyle=style, label=label)
    axes.set_xlabel("calls a question")
    axes.set_ylabel("answered rightly by the frozen answerer")
    axes.legend(fontsize=8)
    return png(drawn)
