"""Draws the pictures of rounds and checkpoints."""

import math

from matplotlib.figure import Figure

from eval.statistics.intervals import Estimate

from .plots import error_bars, look, name_series, panels, png
from .results import Report
from .tables_rounds import series_title, trained_on


def rounds_pictures(report: Report) -> dict[str, bytes]:
    """Reward, distance and length by round or step, and reward by distance; empty where the report is of no such series."""
    by = series_title(report).lower().removesuffix("s")
    drawn = {
        f"Reward, distance and length by {by}": _rounds(report),
        "Reward by distance from the reference": _over(report),
    }
    return {title: png(figure) for title, figure in drawn.items() if figure is not None}


def _rounds(report: Report) -> Figure | None:
    """The first policy stands at 0 where it is the reference."""
    every = {
        "gold reward": {"": "gold_reward/policy"},
        "win rate": {name: f"win_rate/{name}" for name in report.judged},
        "KL, nats per answer": {"from the reference": "kl", "from the round before": "kl_before"},
        "length, tokens": {"": "length_tokens/policy"},
    }
    known = {
        title: {label: key for label, key in keys.items() if key in report.estimates} for title, keys in every.items()
    }
    shown = {title: keys for title, keys in known.items() if keys}
    if not report.series or not shown:
        return None
    figure, axis = panels(len(shown), sharex=True)
    for axes, (title, keys) in zip(axis, shown.items(), strict=True):
        for index, (label, key) in enumerate(keys.items()):
            prefixed = {who: key if who == report.name else f"{who}/{key}" for who in report.series}
            found = {
                int(w.rpartition("-")[2]): report.estimates[k] for w, k in prefixed.items() if k in report.estimates
            }
            before = report.estimates.get(key.replace("/policy", "/ref")) if key.endswith("/policy") else None
            if before is not None and 0 not in found:
                found = {0: before, **found}
            axes.errorbar(
                [number + 0.05 * index for number in found], [e.value for e in found.values()],
                yerr=error_bars(list(found.values())), capsize=3, label=label or None, **look(index),
            )  # fmt: skip
        axes.set(ylabel=title)
        axes.locator_params(axis="x", integer=True)
    axis[-1].set(xlabel="rounds trained" if report.rounds else "step")
    name_series(figure)
    return figure


def _over(report: Report) -> Figure | None:
    """Gold reward, win rates and the rewards of training by the square root of the KL, in the order of training.

    Source: the axis of Gao et al. 2022, "Scaling laws for reward model overoptimization" (arXiv:2210.10760).
    """
    panel = {"gold reward": "gold_reward/policy"}
    panel |= {f"trained on: {name}": f"objectives/{name}/policy" for name in trained_on(report)}
    panel |= {f"win rate, {name}": f"win_rate/{name}" for name in report.judged}
    prefix = {who: "" if who == report.name else f"{who}/" for who in report.series}
    have = [who for who in report.series if f"{prefix[who]}kl" in report.estimates]
    shown = {
        title: key for title, key in panel.items() if all(f"{prefix[who]}{key}" in report.estimates for who in have)
    }
    if not have or not shown:
        return None
    distances = [_root(report.estimates[f"{prefix[who]}kl"]) for who in have]
    figure, axis = panels(len(shown), sharex=True)
    for axes, (title, key) in zip(axis, shown.items(), strict=True):
        values = [report.estimates[f"{prefix[who]}{key}"] for who in have]
        axes.errorbar(
            [e.value for e in distances], [e.value for e in values], xerr=error_bars(distances), yerr=error_bars(values),
            capsize=3, elinewidth=1, **look(0),
        )  # fmt: skip
        for who, x, y in zip(have, distances, values, strict=True):
            label = who.rpartition("-")[2]
            axes.annotate(label, (x.value, y.value), xytext=(4, 4), textcoords="offset points", fontsize="x-small")
        ref = report.estimates.get(f"{key.removesuffix('policy')}ref") if key.endswith("/policy") else None
        level = ref.value if ref is not None else 0.5
        axes.axhline(level, color="black", linewidth=1, linestyle=":", label="the reference")
        axes.set(ylabel=title)
    axis[-1].set(xlabel="square root of the KL from the reference, nats per answer", xlim=(0, None))
    name_series(figure)
    return figure


def _root(e: Estimate) -> Estimate:
    return Estimate(math.sqrt(max(e.value, 0)), math.sqrt(max(e.low, 0)), math.sqrt(max(e.high, 0)), e.n)
