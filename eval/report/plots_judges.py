"""Draws what judges said: win rates beside the longer answer's, ratings, and the best of k."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.statistics.intervals import Estimate
from eval.verdicts import Judged

from .plots import COLOURS, REF, error_bars, png, short
from .results import Report

ROW_INCHES = 0.32


def judged_pictures(report: Report) -> dict[str, bytes]:
    """Pictures as PNG bytes by title; none of what the report does not have."""
    drawn: dict[str, Figure] = {}
    rates = [(name, who, j) for name, j in report.judged.items() for who in j.win_rates]
    if rates:
        drawn["Win rates"] = _win_rates(rates)
    rated = {name: judged.ratings for name, judged in report.judged.items() if judged.ratings}
    if rated:
        drawn["Ratings"] = _ratings(rated)
    if report.best_of_k:
        drawn["Best of k"] = _best_of_k(report)
    return {title: png(figure) for title, figure in drawn.items()}


def _figure(rows: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 1.1 + ROW_INCHES * rows), dpi=130, layout="constrained")
    return figure, figure.subplots()


def _point(axes: Axes, row: float, estimate: Estimate, colour: str, label: str | None) -> None:
    axes.errorbar(estimate.value, row, xerr=error_bars([estimate]), fmt="o", color=colour, capsize=3, label=label)
    for end, arrow in ((estimate.low, "←"), (estimate.high, "→")):
        if math.isinf(end):
            axes.annotate(
                arrow, (estimate.value, row), va="center", ha="right" if arrow == "←" else "left", color=colour
            )


def _win_rates(rates: list[tuple[str, str, Judged]]) -> Figure:
    figure, axes = _figure(len(rates))
    labelled = False
    for row, (_, who, judged) in enumerate(rates):
        named = row == 0
        baseline = judged.longer_wins[who].value
        axes.plot(
            baseline, row, marker="|", markersize=14, color=REF, linestyle="", label="longer wins" if named else None
        )
        _point(axes, row - 0.12, judged.win_rates[who].win_rate, COLOURS[0], "win rate" if named else None)
        controlled = judged.length_controlled.get(who)
        if controlled is not None:
            _point(axes, row + 0.16, controlled, COLOURS[1], None if labelled else "length-controlled")
            labelled = True
    axes.axvline(0.5, color="black", linewidth=1)
    _rows(axes, [f"{short(who)} · {short(name)}" for name, who, _ in rates])
    axes.set(xlabel="share won against the reference, mean and 95% interval", xlim=(-0.02, 1.02))
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    return figure


def _ratings(rated: dict[str, dict[str, Estimate]]) -> Figure:
    players = list(dict.fromkeys(who for ratings in rated.values() for who in ratings))
    figure, axes = _figure(len(players))
    for index, (name, ratings) in enumerate(rated.items()):
        for row, who in enumerate(players):
            if who in ratings:
                place = row + 0.24 * (index - (len(rated) - 1) / 2)
                _point(axes, place, ratings[who], COLOURS[index % len(COLOURS)], short(name) if row == 0 else None)
    axes.axvline(0, color="black", linewidth=1)
    _rows(axes, [short(who) for who in players])
    axes.set(xlabel="Bradley-Terry strength, nats, 95% interval")
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize="small")
    return figure


def _best_of_k(report: Report) -> Figure:
    figure = Figure(figsize=(8, 3.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(report.best_of_k.items()):
        ks, values = list(curve), list(curve.values())
        colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
        axes.plot(ks, [e.value for e in values], style, marker="o", markersize=4, color=colour, label=short(name))
        below, above = error_bars(values)
        middle = np.array([e.value for e in values])
        axes.fill_between(ks, middle - below, middle + above, color=colour, alpha=0.12)
    axes.set_xscale("log", base=2)
    ticks = sorted({k for curve in report.best_of_k.values() for k in curve})
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set(xlabel="k answers drawn, the one kept that the judge likes best", ylabel="reward of the kept answer")
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    return figure


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
