"""Figures over seeds and the picture of `planted_groups.py`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from eval.statistics.groups import WORST
from eval.statistics.intervals import over_seeds
from study_parts.as_json import shown

LONG, SHORT = "long", "short"
"""What people like, by which their groups are named."""
POOLED, FOUND, MAX_MIN = "pooled", "groups found", "max-min"
GAP = "max-min minus pooled, the smaller group"


def summary(seeds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What judges rank right and policies win, and their differences, over the seeds that have policies; Student's intervals."""
    done = [seed for seed in seeds.values() if "policies" in seed]
    if len(done) < 2:
        return {}

    def of(part: str, name: str, key: str) -> np.ndarray:
        return np.array([seed[part][name][key]["value"] for seed in done])

    keys = (f"group/{LONG}", f"group/{SHORT}", WORST)
    told: dict[str, Any] = {
        part: {name: {key: shown(over_seeds(of(part, name, key))) for key in keys} for name in done[0][part]}
        for part in ("judges", "policies")
    }
    gap = of("judges", FOUND, WORST) - of("judges", POOLED, WORST)
    told["groups found minus pooled, the worst group ranked right"] = shown(over_seeds(gap))
    told[GAP] = shown(over_seeds(np.array([seed[GAP]["value"] for seed in done])))
    return told


def drawn(told: dict[str, Any]) -> Figure:
    """Adjusted Rand by pairs; what is ranked right and won, by group, the mean of all seeds and each of them."""
    figure = Figure(figsize=(10.5, 3.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, 3)
    found = told["by pairs"]
    pairs, values = list(map(int, found)), np.array([one["value"] for one in found.values()])
    bars = [
        [0.0 if one[end] is None else abs(one["value"] - one[end]) for one in found.values()] for end in ("low", "high")
    ]
    panels[0].errorbar(pairs, values, yerr=bars, fmt="o-", color="#1f6feb", capsize=3)
    panels[0].set(
        xlabel="pairs a person", ylabel="adjusted Rand index of ten drawings", xscale="log", ylim=(-0.05, 1.1)
    )
    panels[0].set_xticks(pairs, [str(n) for n in pairs])
    panels[0].xaxis.set_minor_locator(NullLocator())
    titles = {"judges": "pairs ranked right", "policies": "win rate over the reference"}
    for axes, (part, title) in zip(panels[1:], titles.items(), strict=True):
        seeds = [seed[part] for seed in told["seeds"].values() if part in seed]
        for k, name in enumerate(seeds[0] if seeds else ()):
            of = np.array([[seed[name][f"group/{group}"]["value"] for group in (LONG, SHORT)] for seed in seeds])
            places = np.arange(2) + (k - 0.5) * 0.35
            axes.bar(places, of.mean(axis=0), 0.33, label=name, alpha=0.6)
            for row in of:
                axes.plot(places, row, "o", color="black", markersize=3)
        axes.axhline(0.5, color="black", linewidth=0.6)
        axes.set(xticks=[0, 1], xticklabels=["12 like long", "4 like short"], ylabel=title, ylim=(0, 1))
        if seeds:
            axes.legend(frameon=False, ncols=2, loc="upper center")
    return figure
