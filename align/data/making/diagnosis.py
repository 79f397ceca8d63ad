"""Tells which rows of supervised data a model finds hard, which stand alone, and which are poor, by figures of each row.

Source: Middo (arXiv:2508.21589), read in the authors' code: three filters, each a threshold of so many standard deviations
from the mean of the set. A row without a figure counts in no mean and has no flag of that figure.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

HARD, LONELY, POOR = FLAGS = ("hard", "lonely", "poor")
NEIGHBOURS = 2
BLOCK = 1024
MOST = 10.0
NUMBER = re.compile(r"\d+\.\d+|\d+")

Figure = Float[np.ndarray, " rows"]


class Figures(NamedTuple):
    """What is known of each row; NaN where there is none. Shape (rows,) each."""

    before: Figure
    """Negative log-likelihood before training, nats per token of the completion."""
    after: Figure
    """The same after training."""
    similarity: Figure
    """Mean cosine of the prompt to the nearest others, see `nearest`."""
    rating: Figure
    """Of prompt and completion, the more the better."""


class Limits(NamedTuple):
    """Beyond which a row is flagged, strictly; NaN where there are no figures, or all are equal."""

    before: float
    after: float
    similarity: float
    rating: float


def limits(figures: Figures, sigmas: Mapping[str, float]) -> Limits:
    """The thresholds of a set.

    Losses have mean + sigmas x standard deviation, similarities and ratings the mean less as much. The deviation is that
    of the population, for ratings that of a sample, as in the authors' code; there `sigmas` of losses is always 1.

    Args:
        figures: Of all rows of the set.
        sigmas: By flag.
    """
    return Limits(
        _limit(figures.before, sigmas[HARD]), _limit(figures.after, sigmas[HARD]),
        _limit(figures.similarity, -sigmas[LONELY]), _limit(figures.rating, -sigmas[POOR], ddof=1),
    )  # fmt: skip


def flags(figures: Figures, beyond: Limits) -> list[list[str]]:
    """For each row its flags: `hard` above both losses' limits, `lonely` and `poor` below their own."""
    with np.errstate(invalid="ignore"):
        hard = (figures.before > beyond.before) & (figures.after > beyond.after)
        lonely, poor = figures.similarity < beyond.similarity, figures.rating < beyond.rating
    return [
        [name for name, is_so in zip(FLAGS, row, strict=True) if is_so] for row in zip(hard, lonely, poor, strict=True)
    ]


def _limit(values: Figure, sigmas: float, ddof: int = 0) -> float:
    known = values[np.isfinite(values)]
    if len(known) < 2 or known.min() == known.max():  # rounding would give equal values a deviation
        return float("nan")
    return float(known.mean() + sigmas * known.std(ddof=ddof))


def nearest(
    vectors: Float[np.ndarray, "rows width"], k: int = NEIGHBOURS
) -> tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, " rows"]]:
    """The k other rows of the largest cosine, largest first, and the mean of these cosines.

    All rows are held against all others, a block at a time: the time is quadratic in rows, the memory linear.

    Args:
        vectors: One of each row, in any unit, not zero.
        k: At most one fewer than there are rows are found.

    Raises:
        ValueError: If a vector is zero or not finite.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not (lengths > 0).all():
        raise ValueError("vectors: must be finite and not zero")
    unit, k = vectors / lengths, min(k, len(vectors) - 1)
    found, means = [], []
    for start in range(0, len(unit), BLOCK):
        cosines = unit[start : start + BLOCK] @ unit.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        found.append(order)
        means.append(np.take_along_axis(cosines, order, axis=1).mean(axis=1) if k else np.full(len(cosines), np.nan))
    return np.concatenate(found), np.concatenate(means)


def read_rating(reply: str) -> float | None:
    """The first number of a reply, at most 10; None if there is none.

    As in the authors' code "Out of 10: 6" is 10, so a question must ask for the number alone. Deviation: there a reply
    without a number is 0, which flags rows for what the model failed to say of them.
    """
    found = NUMBER.search(reply)
    return None if found is None else min(MOST, float(found[0]))
