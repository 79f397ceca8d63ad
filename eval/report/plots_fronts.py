"""Draws runs with several objectives as PNG bytes: fronts, ways through objective space, weights over time."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from align.weighting.archive import nondominated
from eval.fronts.front import Front
from eval.fronts.indicators import Points
from eval.statistics.names import REF as REF_NAME

from .plots import COLOURS, DASHES, MARKERS, REF, SMOOTHING, name_series, panels, png, short

matplotlib.use("Agg")

ROW_INCHES = 2.9
Records = Sequence[Mapping[str, Any]]
Seed = Float[np.ndarray, "_ objectives"]


def objective_pictures(curves: Mapping[str, Records], front: Front | None) -> dict[str, bytes]:
    """All pictures of objectives that there is something to draw for, by title.

    Ways through objective space are those of the runs that logged the same objectives as the first that logged two or
    more. Seeds of one recipe share their colour.

    Args:
        curves: Records of `metrics.jsonl` by run; empty for one that has none.
        front: Of the runs that were compared, if there are several.
    """
    drawn: dict[str, bytes | None] = {}
    if front is not None:
        drawn["Front of the runs"] = runs_picture(front)
    ways = {run: objective_points(records) for run, records in curves.items()}
    names = next((found for found, points in ways.values() if len(found) > 1 and len(points)), [])
    groups = {run: [run] for run in curves} if front is None else front.seeds
    seeds = {
        _titled(name, members): [ways[m][1] for m in members if m in ways and ways[m][0] == names and len(ways[m][1])]
        for name, members in groups.items()
    }
    seeds = {name: points for name, points in seeds.items() if points}
    if seeds:
        drawn["Objectives while training"] = trajectory_picture(seeds, names)
    drawn["Weights while training"] = weights_picture(curves)
    return {title: png for title, png in drawn.items() if png is not None}


def runs_picture(front: Front) -> bytes:
    """Runs as points with 95% intervals over prompts, one panel for each pair of objectives.

    Filled marks are on the front over all objectives, hollow ones are not. The line joins, in each panel, what is on the
    front of these two objectives alone. Of several seeds of a recipe a cross shows the mean; the grey star is the
    reference policy. Every objective is maximised.
    """

    def draw(axes: Axes, first: int, second: int) -> None:
        pairs = {who: np.array(point)[[first, second]] for who, point in front.points.items()}
        ends = {who: np.array(rows)[[first, second]] for who, rows in front.intervals.items()}
        every = np.array([pairs[who] for who in front.on_front])
        stairs = np.unique(every[nondominated(every)], axis=0)
        axes.step(*stairs.T, where="pre", color="black", alpha=0.35, linewidth=1, zorder=1)
        grey: dict[str, Any] = {"color": REF, "marker": "*", "linestyle": "none"}
        axes.errorbar(
            *pairs[REF_NAME], **_errors(pairs[REF_NAME], ends[REF_NAME]), label="reference", alpha=0.9, **grey
        )
        for index, (name, members) in enumerate(front.seeds.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            for number, who in enumerate(members):
                look = {"markerfacecolor": colour if front.on_front[who] else "white", "linestyle": "none"}
                label = None if number else short(_titled(name, members))
                axes.errorbar(
                    *pairs[who], **_errors(pairs[who], ends[who]), color=colour, marker=marker, label=label, **look
                )
            if len(members) > 1:
                mean = np.mean([pairs[who] for who in members], axis=0)
                axes.plot(*mean, marker="X", color=colour, markeredgecolor="black", markersize=9, zorder=5)

    note = "filled: on the front over all objectives; bars: 95% over prompts"
    if any(len(members) > 1 for members in front.seeds.values()):
        note += "; cross: mean of the seeds"
    return _panels(front.objectives, [len(front.objectives)], draw, note)


def _errors(point: np.ndarray, ends: np.ndarray) -> dict[str, Any]:
    """Bars from a point to the ends of its interval, thin enough to see past."""
    x, y = np.abs(ends - point[:, None])
    return {"xerr": x[:, None], "yerr": y[:, None], "elinewidth": 0.8, "capsize": 2, "markersize": 6}


def _titled(name: str, members: Sequence[str]) -> str:
    return name if len(members) == 1 else f"{name} ({len(members)} seeds)"


def objective_points(records: Records) -> tuple[list[str], Float[np.ndarray, "steps objectives"]]:
    """Objectives and their values at each step of a `metrics.jsonl` that holds `objectives/NAME`.

    Steps at which one of them is missing or not finite are left out.
    """
    return _series(records, "objectives/")[1:]


def front_picture(runs: Mapping[str, Sequence[Seed]], names: Sequence[str]) -> bytes:
    """The points of several runs with the front of each seed, one panel for each pair of objectives.

    Filled marks are on their seed's front over all objectives, pale ones are not; the stairs join, in each panel, what is
    on the front of these two objectives alone. Every objective is maximised.

    Args:
        runs: For each run the points of each of its seeds.
        names: One for each objective.

    Raises:
        ValueError: If there are fewer than two objectives, or no points.
    """

    def draw(axes: Axes, first: int, second: int) -> None:
        for index, (run, seeds) in enumerate(runs.items()):
            look: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
            for number, points in enumerate(seeds):
                pair, best = points[:, [first, second]], nondominated(points)
                axes.scatter(*pair[~best].T, s=14, alpha=0.25, linewidths=0, **look)
                axes.scatter(*pair[best].T, s=30, label=None if number else short(run), **look)
                stairs = np.unique(pair[nondominated(pair)], axis=0)
                axes.step(*stairs.T, where="pre", color=look["color"], alpha=0.7, linewidth=1.2)

    shapes = [points.shape[1] for seeds in runs.values() for points in seeds]
    return _panels(names, shapes, draw)


def trajectory_picture(runs: Mapping[str, Sequence[Seed]], names: Sequence[str]) -> bytes:
    """The way of each run through objective space, one panel for each pair of objectives.

    A hollow mark is where a run begins, a filled one where it ends. Each step shows the mean of the last five.

    Args:
        runs: For each run the points of each of its seeds, in the order of the steps.
        names: One for each objective.

    Raises:
        ValueError: If there are fewer than two objectives, or no points.
    """

    def draw(axes: Axes, first: int, second: int) -> None:
        for index, (run, seeds) in enumerate(runs.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            for number, points in enumerate(seeds):
                way = smoothed(points[:, [first, second]])
                axes.plot(*way.T, color=colour, alpha=0.7, linewidth=1.3, linestyle=DASHES[index % len(DASHES)])
                axes.plot(*way[0], marker=marker, markerfacecolor="white", color=colour, markersize=6, linestyle="none")
                axes.plot(
                    *way[-1],
                    marker=marker,
                    color=colour,
                    markersize=7,
                    linestyle="none",
                    label=None if number else short(run),
                )

    shapes = [points.shape[1] for seeds in runs.values() for points in seeds]
    return _panels(names, shapes, draw)


def weights_picture(runs: Mapping[str, Records]) -> bytes | None:
    """The weight of each objective over the steps, one panel for each run; None if no run logged weights.

    Args:
        runs: Records of `metrics.jsonl` by run; `weights/NAME` at each step.
    """
    series = {run: _series(records, "weights/") for run, records in runs.items()}
    series = {run: found for run, found in series.items() if len(found[0])}
    if not series:
        return None
    names = list(dict.fromkeys(name for _, found, _ in series.values() for name in found))
    figure, axis = panels(len(series), ROW_INCHES, sharey=True)
    for axes, (run, (steps, found, values)) in zip(axis, series.items(), strict=True):
        for column, name in enumerate(found):
            index = names.index(name)
            every = max(1, len(steps) // 8)
            marked: dict[str, Any] = {
                "marker": MARKERS[index % len(MARKERS)],
                "markersize": 4,
                "linewidth": max(1.0, 3.0 - 0.8 * index),
            }
            marked["markevery"] = (index * every // len(names), every)  # equal weights hide one another else
            axes.plot(steps, values[:, column], color=COLOURS[index % len(COLOURS)], label=short(name), **marked)
        axes.set(title=short(run), xlabel="step")
        axes.locator_params(axis="x", integer=True)
    largest = max(float(values.max()) for _, _, values in series.values())
    axis[0].set(ylim=(0, 1.05 * largest))
    for axes in axis:
        axes.set(ylabel="weight")
    name_series(figure)
    return png(figure)


def smoothed(points: Points) -> Points:
    """At each step the mean of the last five."""
    return np.array([points[max(0, i - SMOOTHING + 1) : i + 1].mean(axis=0) for i in range(len(points))])


def _series(records: Records, prefix: str) -> tuple[list[int], list[str], Float[np.ndarray, "steps objectives"]]:
    names = list(dict.fromkeys(key for record in records for key in record if key.startswith(prefix)))
    rows = [r for r in records if names and all(isinstance(r.get(name), int | float) for name in names)]
    values = np.array([[float(r[name]) for name in names] for r in rows]).reshape(len(rows), len(names))
    return [int(r["step"]) for r in rows], [name.removeprefix(prefix) for name in names], values


def _panels(
    names: Sequence[str], shapes: Sequence[int], draw: Callable[[Axes, int, int], None], note: str = ""
) -> bytes:
    if len(names) < 2 or not shapes or set(shapes) != {len(names)}:
        raise ValueError(f"names must be those of at least two objectives of every run, got {list(names)} for {shapes}")
    pairs = list(combinations(range(len(names)), 2))
    figure, axis = panels(len(pairs), ROW_INCHES)
    for axes, (first, second) in zip(axis, pairs, strict=True):
        draw(axes, first, second)
        axes.set(xlabel=short(names[first]), ylabel=short(names[second]))
    if note:
        figure.supxlabel(textwrap.fill(note, 60), fontsize="small", color="#57606a")
    name_series(figure)
    return png(figure)
