"""Writes down what a share of independent items must be shown as."""

from align.intervals import wilson
from eval.statistics.intervals import Estimate


def wilson_estimate(wins, n, *, level=0.95):
    return Estimate(float(wins) / n, *wilson(float(wins), float(n), level=level), n)
