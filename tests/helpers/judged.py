"""Answers to judge, and judges of whom everything is known."""

import numpy as np

from align.intervals import wilson
from align.judges.scorers import RewardScorer, TableScorer
from eval.answers.table import Sampled
from eval.statistics.intervals import Estimate
from eval.statistics.names import REF


def sampled(n=40, names=("a", "b", "c"), samples=1):
    """Every policy says its own name, and the reference "ref"."""
    rows = [{"prompt": f"p{i}", "answer": str(i)} for i in range(n)]
    return Sampled(rows, {who: [[who] * samples for _ in rows] for who in (*names, REF)})


def strengths(**values):
    """A judge of a Bradley-Terry world: P(i beats j) = sigmoid(r_i - r_j)."""
    names = list(values)
    r = np.array([values[name] for name in names])
    return TableScorer(names, 1 / (1 + np.exp(r[None, :] - r[:, None])))


LARGER = RewardScorer(lambda completions, **_: [float(c) for c in completions], temperature=0.0)
"""Prefers the larger number."""


def numbers(n=30, samples=1, seed=0, players=("mine", "other"), ties=True):
    rng = np.random.default_rng(seed)
    rows = [{"prompt": f"p{i}"} for i in range(n)]
    top = 3 if ties else 10**6
    return Sampled(
        rows, {w: [[str(v) for v in row] for row in rng.integers(top, size=(n, samples))] for w in (*players, REF)}
    )


def wilson_estimate(wins, n, *, level=0.95):
    """What a share of n independent items must be shown as."""
    return Estimate(float(wins) / n, *wilson(float(wins), float(n), level=level), n)
