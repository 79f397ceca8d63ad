"""Draws the pictures of rounds."""

from matplotlib.figure import Figure

from .plots import error_bars, look, name_series, panels, png
from .results import Report


def rounds_pictures(report: Report) -> dict[str, bytes]:
    """Reward, distance and length by round, by title; empty where the report is not of rounds."""
    figure = _rounds(report)
    return {} if figure is None else {"Reward, distance and length by round": png(figure)}


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
    if not report.rounds or not shown:
        return None
    figure, axis = panels(len(shown), sharex=True)
    for axes, (title, keys) in zip(axis, shown.items(), strict=True):
        for index, (label, key) in enumerate(keys.items()):
            prefixed = {who: key if who == report.name else f"{who}/{key}" for who in report.rounds}
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
    axis[-1].set(xlabel="rounds trained")
    name_series(figure)
    return figure
