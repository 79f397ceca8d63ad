"""Draws pictures of a report as PNG bytes, with Matplotlib only, in colours that stay apart in grey print."""

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from align.intervals import wilson
from eval.pairs.calibration import margin_confidence, mass_bins, reliability
from eval.statistics.intervals import Estimate

from .results import Report

matplotlib.use("Agg")

POLICY, REF, THIRD = "#1f6feb", "#8a8f98", "#d9730d"
COLOURS = (POLICY, THIRD, "#2da44e", "#8250df", "#bf3989")
LONGEST_NAME = 24
SMOOTHING = 5
TREND = 10
"""Bins of fewer pairs are not joined by a line."""


def pictures(report: Report, curves: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """All pictures that the report has data for, by title.

    Args:
        report: The evaluation.
        curves: Records of `metrics.jsonl` by run name, the evaluated run first.
    """
    drawn = {
        "Reward, distance and length by round": _draw(_rounds, report),
        "Gold reward before and after": _draw(_gold, report),
        "Margins on held-out pairs": _draw(_margins, report),
        "What became of both answers": _draw(_sides, report),
        "Reliability of the implicit reward": _draw(_reliability, report),
        "Training": _draw(_curves, curves),
    }
    return {title: png for title, png in drawn.items() if png is not None}


def _draw(draw: Callable[[Figure, Any], bool], data: Any) -> bytes | None:
    figure = Figure(figsize=(8, 3.2), dpi=130, layout="constrained")
    return png(figure) if draw(figure, data) else None


def png(figure: Figure) -> bytes:
    """A finished figure as a picture."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def error_bars(estimates: Sequence[Estimate]) -> np.ndarray:
    """How far the ends lie from the values, of shape (2, estimates); nothing where there is no end."""
    ends = np.array([[e.value - e.low, e.high - e.value] for e in estimates]).T
    return np.where(np.isfinite(ends), np.maximum(ends, 0.0), 0.0)


def _rounds(figure: Figure, report: Report) -> bool:
    """Reward, distance and length by round; the first policy stands at 0 where it is the reference."""
    panels = {
        "gold reward": {"": "gold_reward/policy"},
        "win rate": {name: f"win_rate/{name}" for name in report.judged},
        "KL, nats per answer": {"from the reference": "kl", "from the round before": "kl_before"},
        "length, tokens": {"": "length_tokens/policy"},
    }
    panels = {
        title: {label: key for label, key in lines.items() if key in report.estimates}
        for title, lines in panels.items()
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    if not report.rounds or not panels:
        return False
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for index, (label, key) in enumerate(lines.items()):
            prefixed = {who: key if who == report.name else f"{who}/{key}" for who in report.rounds}
            found = {
                int(who.rpartition("-")[2]): report.estimates[k] for who, k in prefixed.items() if k in report.estimates
            }
            before = report.estimates.get(key.replace("/policy", "/ref")) if key.endswith("/policy") else None
            if before is not None and 0 not in found:
                found = {0: before, **found}
            axes.errorbar(
                list(found), [e.value for e in found.values()], yerr=error_bars(list(found.values())), marker="o", capsize=3,
                color=COLOURS[index % len(COLOURS)], label=short(label) or None, linestyle="-" if index == 0 else "--",
            )  # fmt: skip
        axes.set(title=title, xlabel="rounds trained")
        axes.locator_params(axis="x", integer=True)
        if any(lines):
            axes.legend(frameon=False, fontsize="small")
    return True


def _gold(figure: Figure, report: Report) -> bool:
    if not report.answers or "policy_reward" not in report.answers[0]:
        return False
    policy = np.array([row["policy_reward"] for row in report.answers])
    ref = np.array([row["ref_reward"] for row in report.answers])
    left, right = figure.subplots(1, 2)
    bins = np.linspace(min(policy.min(), ref.min()), max(policy.max(), ref.max()) + 1e-9, 21)
    left.hist(ref, bins, color=REF, alpha=0.8, label="reference")
    left.hist(policy, bins, histtype="step", color=POLICY, linewidth=2, label="policy")
    left.set(xlabel="gold reward", ylabel="answers")
    left.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.locator_params(axis="y", integer=True)
    right.hist(policy - ref, 21, color=POLICY)
    right.axvline(0, color="black", linewidth=1)
    right.axvline((policy - ref).mean(), color=THIRD, linewidth=2, label="mean")
    right.set(xlabel="policy minus reference, same prompt", ylabel="prompts")
    right.legend(frameon=False)
    return True


def _margins(figure: Figure, report: Report) -> bool:
    if not report.pairs:
        return False
    panels = figure.subplots(1, len(report.pairs), squeeze=False)[0]
    for axes, (name, subjects) in zip(panels, report.pairs.items(), strict=True):
        margins = {who: (s.chosen - s.ref_chosen) - (s.rejected - s.ref_rejected) for who, s in subjects.items()}
        both = np.concatenate(list(margins.values()))
        bins = np.linspace(both.min() - 1e-9, both.max() + 1e-9, 31)
        for index, (who, values) in enumerate(margins.items()):
            style = {"color": COLOURS[index % len(COLOURS)], "label": short(who)}
            axes.hist(
                values, bins, **(style | ({"alpha": 0.75} if index == 0 else {"histtype": "step", "linewidth": 2}))
            )
        axes.axvline(0, color="black", linewidth=1)
        axes.locator_params(axis="y", integer=True)
        axes.set(title=short(name), xlabel="chosen minus rejected log-ratio, nats", ylabel="pairs")
    _name_series(figure)
    return True


def _sides(figure: Figure, report: Report) -> bool:
    if not report.pairs:
        return False
    name, subjects = next(iter(report.pairs.items()))
    names = list(subjects)
    axes = figure.subplots()
    for offset, side, colour in ((-0.2, "chosen", POLICY), (0.2, "rejected", THIRD)):
        for index, who in enumerate(names):
            prefix = name if index == 0 else f"{who}/{name}"
            estimate = report.estimates[f"{prefix}/log_ratio/{side}"]
            axes.bar(index + offset, estimate.value, 0.36, color=colour, label=side if index == 0 else None)
            axes.errorbar(index + offset, estimate.value, yerr=error_bars([estimate]), color="black", capsize=4)
    axes.axhline(0, color="black", linewidth=1)
    axes.set_xticks(range(len(names)), [textwrap.fill(short(who), max(60 // len(names), 8)) for who in names])
    axes.set(
        ylabel="change in log-probability, nats", title=f"{short(name)}: policy minus reference, mean and 95% interval"
    )
    axes.legend(frameon=False)
    return True


def _reliability(figure: Figure, report: Report) -> bool:
    sets = {name: margins for name, margins in report.margins.items() if margins}
    if not sets:
        return False
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, (name, margins) in zip(panels, sets.items(), strict=True):
        axes.plot([0.5, 1], [0.5, 1], color="black", linewidth=1)
        for index, (who, values) in enumerate(margins.items()):
            parts = reliability(margin_confidence(values), bins=mass_bins(len(values), fewest=TREND), scheme="mass")
            shares = [Estimate(p.accuracy, *wilson(p.accuracy * p.n, p.n), p.n) for p in parts]
            axes.errorbar(
                [part.confidence for part in parts], [e.value for e in shares], yerr=error_bars(shares), marker="o", capsize=3,
                markersize=4, linewidth=1 if parts[0].n >= TREND else 0, elinewidth=1, color=COLOURS[index % len(COLOURS)], label=short(who),
            )  # fmt: skip
        axes.set(
            title=short(name), xlabel="confidence σ(|margin|)", ylabel="accuracy", xlim=(0.48, 1.02), ylim=(0, 1.02)
        )
    _name_series(figure)
    return True


def _curves(figure: Figure, curves: dict[str, list[dict[str, Any]]]) -> bool:
    shown = (
        ("rewards/margins", "margin, nats"),
        ("rewards/accuracies", "accuracy"),
        ("log_ratio/chosen", "chosen log-ratio, nats"),
    )
    shown = tuple((key, label) for key, label in shown if any(_points(records, key) for records in curves.values()))
    if not shown:
        return False
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (key, label) in zip(panels, shown, strict=True):
        for index, (run, records) in enumerate(curves.items()):
            steps, values = zip(*_points(records, key), strict=True) if _points(records, key) else ((), ())
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(steps, values, color=colour, alpha=0.25)
            axes.plot(steps, _smooth(values), color=colour, label=short(run))
        axes.set(xlabel="step", ylabel=label)
        axes.locator_params(axis="x", integer=True)
    _name_series(figure)
    return True


def _name_series(figure: Figure) -> None:
    """One legend above all panels, where it hides nothing."""
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize="small"
    )


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
