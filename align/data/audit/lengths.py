"""Measures lengths of pairs in tokens: figures, a note, and a picture."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from align.findings import Finding

PARTS = ("prompt", "chosen", "rejected")
IDS = tuple(f"{part}_ids" for part in PARTS)
"""Columns of tokenized pairs."""
COLOURS = {"prompt": "#8a8f98", "chosen": "#1f6feb", "rejected": "#d9730d"}
CUT = "#bf3989"
STEP = 64  # suggested lengths are multiples of it
BINS = 32
Lengths = Int[np.ndarray, "pairs 3"]


def totals(lengths: Lengths) -> Int[np.ndarray, " pairs"]:
    """Tokens of each pair's longer row: the prompt and the longer answer."""
    return lengths[:, 0] + lengths[:, 1:].max(axis=1)


def roomy(lengths: Lengths, share: float = 0.99) -> int:
    """The least multiple of 64 that cuts no more than 1 - `share` of the pairs."""
    return math.ceil(np.quantile(totals(lengths), share, method="higher") / STEP) * STEP


def summary(lengths: Lengths) -> dict[str, dict[str, int]]:
    """Median, 95% quantile and largest number of tokens of each part, before truncation."""
    named = dict(zip(PARTS, lengths.T, strict=True)) | {"prompt with the longer answer": totals(lengths)}
    return {
        part: {"median": int(np.median(n)), "p95": int(np.quantile(n, 0.95, method="higher")), "max": int(n.max())}
        for part, n in named.items()
        if len(n)
    }


def lengths_note(lengths: Lengths, *, where: str) -> Finding:
    """The summary in words, with how much longer chosen answers are than rejected ones."""
    parts = ", ".join(f"{part} {n['median']}/{n['p95']}/{n['max']}" for part, n in summary(lengths).items())
    gap = lengths[:, 1] - lengths[:, 2]
    bias = f"chosen minus rejected {gap.mean():+.1f} on average, chosen longer in {(gap > 0).mean():.0%}"
    remedy = f"max_length={roomy(lengths)} keeps 99% of pairs whole"
    return Finding("note", "lengths", where, f"tokens (median/95%/max): {parts}; {bias}", remedy)


def draw_lengths(sets: Mapping[str, Lengths], max_length: int | None, path: Path) -> None:
    """Histograms of tokens, one row of panels a set: the three parts, and the longer row of each pair.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError("the picture of lengths needs matplotlib: pip install 'alignkit[eval]'") from error
    figure = Figure(figsize=(9, 0.4 + 2.6 * len(sets)), dpi=130, layout="constrained")
    panels = figure.subplots(len(sets), 2, squeeze=False)
    every = np.concatenate([lengths.ravel() for lengths in sets.values()])
    most = max(int(totals(lengths).max()) for lengths in sets.values())
    bins = np.unique(np.geomspace(max(int(every.min()), 1), most + 1, BINS + 1).astype(int))
    for (left, right), (name, lengths) in zip(panels, sets.items(), strict=True):
        for part, values in zip(PARTS, lengths.T, strict=True):
            filled: dict[str, Any] = {"alpha": 0.45} if part == "prompt" else {"histtype": "step", "linewidth": 1.8}
            left.hist(values, bins, color=COLOURS[part], label=part, **filled)
        whole = totals(lengths)
        cut = whole > (most if max_length is None else max_length)
        right.hist([whole[~cut], whole[cut]], bins, stacked=True, color=[COLOURS["chosen"], CUT])
        left.set(ylabel=f"pairs of {name}", xlabel="tokens of the prompt, of each answer")
        right.set(xlabel="tokens of the prompt with the longer answer")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.spines[["top", "right"]].set_visible(False)
            axes.locator_params(axis="y", integer=True)
            if max_length is not None:
                axes.axvline(max_length, color="black", linewidth=1, linestyle="--")
        if max_length is not None:
            told = f"{int(cut.sum())} of {len(cut)} pairs are longer than max_length={max_length}"
            right.set_title(told, fontsize=9, loc="left")
        left.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path)
