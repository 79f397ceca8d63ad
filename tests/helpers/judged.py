"""Answers to judge, judges of whom everything is known, and reports of invented scores."""

import numpy as np

from align.intervals import wilson
from align.judges.scorers import RewardScorer, TableScorer
from eval.answers.table import Sampled
from eval.pairs.ranking import PairScores, ranking_estimates
from eval.report.results import Report
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


PNG = b"\x89PNG\r\n\x1a\n"


def scores(n, seed):
    rng = np.random.default_rng(seed)
    return PairScores(*(-20 + 4 * rng.normal(size=(4, n))), *rng.integers(5, 60, size=(2, n)).astype(float))


def made(name="mine", *, others=(), sets=("test",), prompt="say hello", answer="hello", **settings):
    """A report as `evaluate` makes it, from invented scores."""
    report = Report(name, settings={"method": "rpo", "recipe": {"train": {"beta": 0.1}}, **settings})
    for index, set_name in enumerate(sets):
        report.pairs[set_name] = {who: scores(20, 10 * index + i) for i, who in enumerate((name, *others))}
        for who, row in report.pairs[set_name].items():
            prefix = set_name if who == name else f"{who}/{set_name}"
            report.estimates |= {f"{prefix}/{k}": v for k, v in ranking_estimates(row).items()}
    report.estimates |= {
        "gold_reward/difference": Estimate(0.3, 0.1, 0.5, 12),
        "kl": Estimate(2.0, 1.5, 2.5, 12),
        "length_tokens/difference": Estimate(-1.0, -3.0, 1.0, 12),
    }
    report.answers = [
        {"prompt": prompt, "policy": answer, "ref": "bye", "policy_reward": r, "ref_reward": -r / 2}
        for r in np.linspace(-1, 1, 12).tolist()
    ]
    for who, side in ((name, "policy"), (REF, "ref")):
        report.measured[who] = {"gold_reward": [[row[f"{side}_reward"]] for row in report.answers]}
    return report


def curve(n=8, **replaced):
    records = [
        {"step": i, "rewards/margins": i / n, "rewards/accuracies": 0.5, "log_ratio/chosen": -i / 10, "loss": 0.7}
        for i in range(1, n + 1)
    ]
    return [{k: v for k, v in (record | replaced).items() if v is not None} for record in records]
