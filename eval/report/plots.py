"""Draws pictures of a report as PNG bytes, with Matplotlib only: one panel below the other, so that a telephone shows them.

No two things are told apart by colour alone, and what would cover each other has panels of its own.
"""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from align.intervals import wilson
from eval.pairs.calibration import margin_confidence, mass_bins, reliability
from eval.statistics.intervals import Estimate
from eval.statistics.names import REF as OF_REFERENCE

from .results import Report

matplotlib.use("Agg")

POLICY, REF, THIRD = "#1f6feb", "#8a8f98", "#d9730d"
COLOURS = (POLICY, THIRD, "#2da44e", "#8250df", "#bf3989", "#0b8a8f", "#7a4a21", "#a39300")
MARKERS, DASHES = "osD^vPX<", ("-", "--", "-.", ":")
WIDTH, PANEL, LOW_PANEL = 4.8, 2.3, 1.4
"""Inches. On a telephone a picture is as wide as the window, and its letters are as high as those beside it."""
LONGEST_NAME = 24
SMOOTHING = 5
HATCHED: dict[str, Any] = {"hatch": "///", "edgecolor": "white"}
TREND = 10
"""Bins of fewer pairs are not joined by a line."""


def pictures(report: Report, curves: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """All pictures that the report has data for, by title.

    Args:
        report: The evaluation.
        curves: Records of `metrics.jsonl` by run name, the evaluated run first.
    """
    drawn = {
        "Gold reward before and after": _gold(report),
        "Margins on held-out pairs": _margins(report),
        "What became of both answers": _sides(report),
        "Reliability of the implicit reward": _reliability(report),
        "Training": _curves(curves),
    }
    return {title: png(figure) for title, figure in drawn.items() if figure is not None}


def png(figure: Figure) -> bytes:
    """A finished figure as a picture."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def panels(count: int, height: float = PANEL, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, one below the other."""
    figure = Figure(figsize=(WIDTH, 0.8 + height * count), dpi=130, layout="constrained")
    return figure, figure.subplots(count, 1, squeeze=False, **shared)[:, 0].tolist()


def look(index: int) -> dict[str, Any]:
    """Colour, line and marker of the i-th of several curves."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def error_bars(estimates: Sequence[Estimate]) -> np.ndarray:
    """How far the ends lie from the values, of shape (2, estimates); nothing where there is no end."""
    ends = np.array([[e.value - e.low, e.high - e.value] for e in estimates]).T
    return np.where(np.isfinite(ends), np.maximum(ends, 0.0), 0.0)


def _bins(values: np.ndarray, count: int) -> list[float]:
    """Edges that hold all values, and are not closer than a number on the axis can say."""
    middle, half = (values.min() + values.max()) / 2, max(float(np.ptp(values)) / 2, 0.05 * (1 + abs(values.max())))
    return np.linspace(middle - 1.0001 * half, middle + 1.0001 * half, count).tolist()


def _gold(report: Report) -> Figure | None:
    """Above, every answer; below, the prompts' means, of which `gold_reward/difference` is the mean."""
    of = [report.measured.get(who, {}).get("gold_reward") for who in (report.name, OF_REFERENCE)]
    if None in of:
        return None
    policy, ref = np.array(of[0]), np.array(of[1])
    figure, (above, below) = panels(2)
    bins = _bins(np.concatenate([policy, ref]), 21)
    above.hist(ref.ravel(), bins, color=REF, alpha=0.8, label="reference")
    above.hist(policy.ravel(), bins, histtype="step", color=POLICY, linewidth=2, label="policy")
    above.set(xlabel="gold reward", ylabel="answers")
    differences = (policy - ref).mean(axis=1)
    below.hist(differences, _bins(differences, 22), color=POLICY)
    below.axvline(0, color="black", linewidth=1)
    below.axvline(differences.mean(), color=THIRD, linewidth=2, linestyle="--", label="mean of the differences")
    below.set(xlabel="policy minus reference, same prompt", ylabel="prompts")
    for axes in (above, below):
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", integer=True)
    name_series(figure)
    return figure


def _margins(report: Report) -> Figure | None:
    rows = [(name, who, s) for name, subjects in report.pairs.items() for who, s in subjects.items()]
    if not rows:
        return None
    margins = [(s.chosen - s.ref_chosen) - (s.rejected - s.ref_rejected) for *_, s in rows]
    figure, axis = panels(len(rows), LOW_PANEL, sharex=True)
    bins = _bins(np.concatenate(margins), 31)
    for axes, (name, who, _), values in zip(axis, rows, margins, strict=True):
        axes.hist(values, bins, color=POLICY)
        axes.axvline(0, color="black", linewidth=1)
        axes.locator_params(axis="y", integer=True)
        axes.set_title(titled(name, who, report), fontsize="small", loc="left")
        axes.set(ylabel="pairs")
    axis[-1].set(xlabel="chosen minus rejected log-ratio, nats")
    return figure


def titled(name: str, who: str, report: Report) -> str:
    """What a panel of a set of pairs and a policy is called; the policy is left out where there is one."""
    policies = report.pairs.get(name) or report.margins[name]
    return short(name) if len(policies) == 1 else f"{short(who)} on {short(name)}"


def _sides(report: Report) -> Figure | None:
    rows = [(name, who) for name, subjects in report.pairs.items() for who in subjects]
    if not rows:
        return None
    figure, (axes,) = panels(1, 0.5 + 0.5 * len(rows))
    for place, (name, who) in enumerate(rows):
        prefix = name if who == next(iter(report.pairs[name])) else f"{who}/{name}"
        for offset, side, fill in ((-0.2, "chosen", {}), (0.2, "rejected", HATCHED)):
            estimate = report.estimates[f"{prefix}/log_ratio/{side}"]
            colour, label = POLICY if side == "chosen" else THIRD, side if place == 0 else None
            axes.barh(place + offset, estimate.value, 0.36, color=colour, label=label, **fill)
            axes.errorbar(estimate.value, place + offset, xerr=error_bars([estimate]), color="black", capsize=4)
    axes.axvline(0, color="black", linewidth=1)
    name_rows(axes, [titled(name, who, report) for name, who in rows])
    axes.set(xlabel="change in log-probability, nats, mean and 95%")
    name_series(figure)
    return figure


def _reliability(report: Report) -> Figure | None:
    rows = [(name, who, v) for name, margins in report.margins.items() for who, v in margins.items()]
    if not rows:
        return None
    figure, axis = panels(len(rows), PANEL if len(rows) < 3 else 1.8, sharex=True, sharey=True)
    for axes, (name, who, values) in zip(axis, rows, strict=True):
        parts = reliability(margin_confidence(values), bins=mass_bins(len(values), fewest=TREND), scheme="mass")
        shares = [Estimate(p.accuracy, *wilson(p.accuracy * p.n, p.n), p.n) for p in parts]
        axes.plot([0.5, 1], [0.5, 1], color="black", linewidth=1, label="as sure as it is right")
        axes.errorbar(
            [part.confidence for part in parts], [e.value for e in shares], yerr=error_bars(shares), marker="o", capsize=3,
            markersize=4, linewidth=1 if min(part.n for part in parts) >= TREND else 0, elinewidth=1, color=POLICY,
            label="bins of pairs, 95%",
        )  # fmt: skip
        axes.set(ylabel="accuracy", xlim=(0.48, 1.02), ylim=(0, 1.02))
        axes.set_title(titled(name, who, report), fontsize="small", loc="left")
    axis[-1].set(xlabel="confidence σ(|margin|)")
    name_series(figure)
    return figure


def _curves(curves: dict[str, list[dict[str, Any]]]) -> Figure | None:
    shown = (
        ("rewards/margins", "margin, nats"),
        ("rewards/accuracies", "accuracy"),
        ("log_ratio/chosen", "chosen log-ratio, nats"),
    )
    shown = tuple((key, label) for key, label in shown if any(_points(records, key) for records in curves.values()))
    if not shown:
        return None
    figure, axis = panels(len(shown), sharex=True)
    for axes, (key, label) in zip(axis, shown, strict=True):
        for index, (run, records) in enumerate(curves.items()):
            points = _points(records, key)
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            if len(curves) == 1:
                axes.plot(steps, values, color=POLICY, alpha=0.25, linewidth=1, label="each step")
            every = max(1, len(steps) // 6)
            marks: dict[str, Any] = {"markersize": 4, "markevery": (index * every // len(curves), every)}
            axes.plot(steps, _smooth(values), **look(index), **marks, label=f"{short(run)}, mean of {SMOOTHING}")
        axes.set(ylabel=label)
        axes.locator_params(axis="x", integer=True)
    axis[-1].set(xlabel="step")
    name_series(figure)
    return figure


def name_series(figure: Figure) -> None:
    """One legend above all panels, where it hides nothing."""
    found = {
        str(label): handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if found:
        figure.legend(
            found.values(), found.keys(), loc="outside upper left", ncols=2, frameon=False, fontsize="x-small"
        )


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the left, the first at the top."""
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 16) for name in names], fontsize="small")
    axes.set_ylim(len(names) - 0.5, -0.5)


def _points(records: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Steps and values; "nan" and "inf", which `metrics.jsonl` holds as text, are left out."""
    return [(r["step"], r[key]) for r in records if isinstance(r.get(key), int | float)]


def short(name: str) -> str:
    """The end of a name, where runs differ; a dollar sign is not the start of a formula."""
    end = name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
    return end.replace("$", r"\$")


def _smooth(values: Sequence[float]) -> np.ndarray:
    """Mean of the last few values at each step."""
    return np.array([np.mean(values[max(0, i - SMOOTHING + 1) : i + 1]) for i in range(len(values))])
