"""Policies of a study that are compared by rewards and by how far they went."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from .as_json import over, over_less
from .results import measures_of

MEASURES = {"gold": "gold reward", "proxy": "proxy reward", "kl": "KL to the reference, nats an answer"}
BOUNDS = {"gold": (0.0, 1.0), "proxy": (0.0, 1.0), "kl": (-np.inf, np.inf)}
Rows = Float[np.ndarray, "seeds prompts"]


def ends_of(records: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Rows]]:
    """By policy: the measures of what each seed answered at the end of training."""
    return {name: measures_of([one["end"] for one in some]) for name, some in records.items()}


def compared(found: Mapping[str, Mapping[str, Rows]], against: str) -> dict[str, Any]:
    """By policy: its measures, and each less that of one of them, on the seeds that both have."""
    told: dict[str, Any] = {}
    for name, measures in found.items():
        told[name] = {}
        for measure, rows in measures.items():
            low, high = BOUNDS[measure]
            told[name][measure] = over(rows, (low, high))
            if name != against and against in found:
                gap = over_less(rows, found[against][measure], (low - high, high - low))
                told[name][f"{measure}, less that of {against}"] = gap
    return told


def gold_against_kl(told: Mapping[str, Any], start: Mapping[str, float], colours: Mapping[str, str]) -> Figure:
    """The gold reward against the KL, a small dot a seed, a large one their mean with its interval over prompts."""
    figure = Figure(figsize=(5, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.axhline(start["gold"], color="#6e7781", linestyle=":", linewidth=1, label="before")
    for name, one in told.items():
        axes.plot(one["kl"]["each"], one["gold"]["each"], "o", color=colours[name], alpha=0.4, markersize=4)
        gold, at = one["gold"]["over prompts"], one["kl"]["over prompts"]["value"]
        axes.plot([at, at], [gold["low"], gold["high"]], color=colours[name], linewidth=1.5)
        axes.plot(at, gold["value"], "o", color=colours[name], markersize=7, label=name)
    axes.set(xlabel=MEASURES["kl"], ylabel=MEASURES["gold"])
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure
