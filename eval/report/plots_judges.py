"""Draws what judges said: win rates beside the longer answer's, ratings, and the best of k."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.statistics.intervals import Estimate
from eval.verdicts import Judged

from .plots import COLOURS, MARKERS, REF, error_bars, look, name_rows, name_series, panels, png, short
from .results import Report

ROW_INCHES = 0.5


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


def _point(axes: Axes, row: float, estimate: Estimate, index: int, label: str | None) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    axes.errorbar(
        estimate.value, row, xerr=error_bars([estimate]), fmt=marker, markersize=5, color=colour, capsize=3, label=label
    )
    for end, arrow in ((estimate.low, "←"), (estimate.high, "→")):
        if math.isinf(end):
            axes.annotate(
                arrow, (estimate.value, row), va="center", ha="right" if arrow == "←" else "left", color=colour
            )


def _win_rates(rates: list[tuple[str, str, Judged]]) -> Figure:
    figure, (axes,) = panels(1, ROW_INCHES * (len(rates) + 1))
    labelled = False
    for row, (_, who, judged) in enumerate(rates):
        named = row == 0
        baseline = judged.longer_wins[who].value
        axes.plot(
            baseline, row, marker="|", markersize=14, color=REF, linestyle="", label="longer wins" if named else None
        )
        _point(axes, row - 0.16, judged.win_rates[who].win_rate, 0, "win rate" if named else None)
        controlled = judged.length_controlled.get(who)
        if controlled is not None:
            _point(axes, row + 0.2, controlled, 1, None if labelled else "length-controlled")
            labelled = True
    axes.axvline(0.5, color="black", linewidth=1)
    several = len({who for _, who, _ in rates}) > 1
    name_rows(axes, [f"{short(who)} · {short(name)}" if several else short(name) for name, who, _ in rates])
    axes.set(xlabel="share won against the reference, 95%", xlim=(-0.02, 1.02))
    name_series(figure)
    return figure


def _ratings(rated: dict[str, dict[str, Estimate]]) -> Figure:
    players = list(dict.fromkeys(who for ratings in rated.values() for who in ratings))
    figure, (axes,) = panels(1, ROW_INCHES * (len(players) + 1))
    for index, (name, ratings) in enumerate(rated.items()):
        for row, who in enumerate(players):
            if who in ratings:
                place = row + 0.36 * (index - (len(rated) - 1) / 2) / max(1, len(rated) - 1)
                _point(axes, place, ratings[who], index, short(name) if row == 0 else None)
    axes.axvline(0, color="black", linewidth=1)
    name_rows(axes, [short(who) for who in players])
    axes.set(xlabel="Bradley-Terry strength, nats, 95%")
    name_series(figure)
    return figure


def _best_of_k(report: Report) -> Figure:
    """One panel for each chooser; policies stand beside each other at each k."""
    choosers: dict[str, dict[str, dict[int, Estimate]]] = {}
    for name, curve in report.best_of_k.items():
        by, _, who = name.rpartition(": ")
        choosers.setdefault(by, {})[who] = curve
    figure, axis = panels(len(choosers), sharex=True)
    ticks = sorted({k for curve in report.best_of_k.values() for k in curve})
    for axes, (by, curves) in zip(axis, choosers.items(), strict=True):
        for index, (who, curve) in enumerate(curves.items()):
            beside = 0.5 * (index - (len(curves) - 1) / 2) / max(len(curves), 1)
            places = [ticks.index(k) + beside for k in curve]
            style: dict[str, Any] = look(index) | {"linestyle": "none", "markersize": 4, "capsize": 2, "elinewidth": 1}
            values = list(curve.values())
            axes.errorbar(places, [e.value for e in values], yerr=error_bars(values), label=short(who), **style)
        axes.set_title(f"chosen by {short(by)}", fontsize="small", loc="left")
        axes.set(ylabel="reward, 95%")
    axis[-1].set_xticks(range(len(ticks)), [str(k) for k in ticks])
    axis[-1].set(xlabel="k answers drawn, the one kept that the chooser likes best")
    name_series(figure)
    return figure
