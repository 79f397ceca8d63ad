"""Policies of a study that are compared by rewards and by how far they went."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from align.sampling.policy import Policy
from align.scoring.completions import Sequences, completion_logps, pair_ids
from eval.statistics.comparisons import Compared, corrected
from eval.statistics.intervals import rng_of_report

from .as_json import over, over_less, shown
from .results import measures_of

MEASURES = {"gold": "gold reward", "proxy": "proxy reward", "kl": "KL to the reference, nats an answer"}
BOUNDS = {"gold": (0.0, 1.0), "proxy": (0.0, 1.0), "kl": (-np.inf, np.inf)}
Rows = Float[np.ndarray, "seeds prompts"]


def answer_logps(policy: Policy, sequences: Sequences, *, pad_token_id: int, batch_size: int) -> list[list[float]]:
    """Log-probabilities of answers under a policy, token by token, as records hold them."""
    with policy.load()() as model:
        found = completion_logps(model, sequences, pad_token_id=pad_token_id, batch_size=batch_size)
    return [[round(float(one), 4) for one in row] for row in found]


def pair_logps(
    policy: Policy, tokenizer: Any, pairs: Iterable[Mapping[str, Any]], batch_size: int
) -> dict[str, list[list[float]]]:
    """`answer_logps` of both sides of pairs."""
    ids = [pair_ids(tokenizer, row["prompt"], row["chosen"], row["rejected"]) for row in pairs]
    sides = zip(("chosen", "rejected"), zip(*ids, strict=True), strict=True)
    of_side = partial(answer_logps, policy, pad_token_id=tokenizer.pad_token_id, batch_size=batch_size)
    return {side: of_side(list(some)) for side, some in sides}


def ends_of(records: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Rows]]:
    """By policy: the measures of what each seed answered at the end of training."""
    return {name: measures_of([one["end"] for one in some]) for name, some in records.items()}


def compared(
    found: Mapping[str, Mapping[str, Rows]], against: str, bounds: Mapping[str, tuple[float, float]] = BOUNDS
) -> dict[str, Any]:
    """By policy: its measures, and each less that of one of them, on the seeds that both have; `bounds` are those of each measure."""
    told: dict[str, Any] = {}
    for name, measures in found.items():
        told[name] = {}
        for measure, rows in measures.items():
            low, high = bounds[measure]
            told[name][measure] = over(rows, (low, high))
            if name != against and against in found:
                gap = over_less(rows, found[against][measure], (low - high, high - low))
                told[name][f"{measure}, less that of {against}"] = gap
    return told


def as_one_family(gaps: Mapping[str, Float[np.ndarray, " prompts"]]) -> dict[str, dict[str, Any]]:
    """Differences of shares, prompt by prompt: the mean of each over prompts, with intervals that hold at once."""
    if not gaps:
        return {}
    columns = np.stack(list(gaps.values()), axis=1)
    family = Compared([(name, "") for name in gaps], columns, np.arange(len(columns)), False, 1.0)
    return {
        one.first: {**shown(one.difference), "p": round(one.p_value, 4), "detectable": round(one.detectable, 4)}
        for one in corrected({"all": family}, rng=rng_of_report())["all"]
    }


def points(axes: Any, told: Mapping[str, Any], x: str, y: str, colours: Mapping[str, str]) -> None:
    """One measure against another, a small dot a seed, a large one their mean with its interval over prompts."""
    for name, one in told.items():
        axes.plot(one[x]["each"], one[y]["each"], "o", color=colours[name], alpha=0.4, markersize=4)
        mean, at = one[y]["over prompts"], one[x]["over prompts"]["value"]
        axes.plot([at, at], [mean["low"], mean["high"]], color=colours[name], linewidth=1.5)
        axes.plot(at, mean["value"], "o", color=colours[name], markersize=7, label=name)
    axes.spines[["top", "right"]].set_visible(False)


def gold_against_kl(told: Mapping[str, Any], start: Mapping[str, float], colours: Mapping[str, str]) -> Figure:
    """The gold reward against the KL."""
    figure = Figure(figsize=(5, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.axhline(start["gold"], color="#6e7781", linestyle=":", linewidth=1, label="before")
    points(axes, told, "kl", "gold", colours)
    axes.set(xlabel=MEASURES["kl"], ylabel=MEASURES["gold"])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure
