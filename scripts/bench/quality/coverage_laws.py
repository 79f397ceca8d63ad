"""Draws data sets of known truths, with the estimators of a report as the report uses them, for `coverage.py`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import integrate, stats

from eval.fronts.indicators import volume_over_prompts
from eval.measures.best_of import best_of_k
from eval.measures.divergence import forward_kl, jensen_shannon, reverse_kl
from eval.measures.diversity import distinct
from eval.pairs.calibration import (
    brier,
    debiased_error,
    margin_confidence,
    negative_log_likelihood,
    probability,
    temperature_estimate,
)
from eval.pairs.labels import LabelScores, label_estimates
from eval.pairs.likelihood import per_token
from eval.statistics.groups import WORST, group_shares
from eval.statistics.intervals import Estimate, left_out, mean_estimate, over_seeds
from eval.statistics.length_control import length_controlled_win_rate
from eval.statistics.ratings import bradley_terry, games_of
from eval.statistics.shares import share_difference, share_estimate

Random = np.random.Generator
SIZES = (20, 50, 200)
FRONT_DRAWS = 200


class Law(NamedTuple):
    """One estimator on data of one kind."""

    estimator: str
    data: str
    truth: float
    draw: Callable[[Random, int], Estimate]
    """The estimate from one data set of n prompts."""
    sizes: tuple[int, ...] = SIZES
    miss: str = ""
    """Why the interval does not hold at its level, where it does not."""


def accuracies(rng: Random, prompts: int, items: int, p: float, icc: float) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, in clusters whose own rate is of a beta law with this correlation within."""
    rate = np.full(prompts, p) if icc == 0 else rng.beta(p * (1 / icc - 1), (1 - p) * (1 / icc - 1), prompts)
    return (rng.random((prompts, items)) < rate[:, None]).astype(float).ravel(), np.repeat(np.arange(prompts), items)


def labelled(rng: Random, prompts: int, gap: float, alike: float) -> Estimate:
    """How often a desirable answer is above another; each prompt has two answers, whose scores correlate so much."""
    cluster = np.repeat(np.arange(prompts), 2)
    good = rng.random(2 * prompts) < 0.5
    good[:2] = True, False
    own, shared = rng.normal(size=2 * prompts), rng.normal(size=prompts)[cluster]
    ratio = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own + gap * good
    scores = LabelScores(ratio, np.zeros_like(ratio), np.ones_like(ratio), good)
    return label_estimates(scores, cluster)["told_apart/log_ratio"]


def shares() -> list[Law]:
    """Accuracies, win rates with ties, paired differences, labels told apart."""

    def discordant(rng: Random, n: int, share: float, edge: float) -> np.ndarray:
        return rng.choice([1.0, -1.0, 0.0], size=n, p=[(share + edge) / 2, (share - edge) / 2, 1 - share])

    def worst(rng: Random, n: int, rates: tuple[float, ...]) -> Estimate:
        groups = np.arange(n) % len(rates)
        right = (rng.random(n) < np.array(rates)[groups]) * 1.0
        return group_shares(right, groups.astype(str))[WORST]

    def ties(rng: Random, n: int) -> Estimate:
        return share_estimate(rng.choice([1.0, 0.5, 0.0], size=n, p=[0.5, 0.3, 0.2]))

    found = [
        Law("share", f"{p} right, one item a prompt", p, lambda r, n, p=p: share_estimate(*accuracies(r, n, 1, p, 0)))
        for p in (0.97, 0.8, 0.5)
    ]
    found += [
        Law("share", f"{p} right, {m} items a prompt, correlation .3", p,
            lambda r, n, p=p, m=m: share_estimate(*accuracies(r, n, m, p, 0.3)), sizes)
        for p in (0.8, 0.95) for m, sizes in ((8, (14,)), (4, SIZES))
    ]  # fmt: skip
    found += [
        Law("told apart", f"labels {gap} standard deviations apart, correlation .5", float(stats.norm.cdf(gap / math.sqrt(2))),
            lambda r, n, gap=gap: labelled(r, n, gap, 0.5))
        for gap in (0.0, 0.7, 2.0)
    ]  # fmt: skip
    found.append(Law("win rate", "50% won, 30% tied", 0.65, ties))
    for rates in ((0.6, 0.6, 0.6, 0.6), (0.9, 0.8, 0.7, 0.5)):
        found.append(
            Law("worst group", f"four groups, {rates} right", min(rates), lambda r, n, rates=rates: worst(r, n, rates))
        )
    for share, edge in ((0.02, 0.0), (0.1, 0.05), (0.3, 0.1)):
        why = "few discordant prompts: an interval of a discrete number" if share < 0.1 else ""
        found.append(
            Law("difference of shares", f"{share} discordant, difference {edge}", edge,
                lambda r, n, share=share, edge=edge: share_difference(discordant(r, n, share, edge)), miss=why)
        )  # fmt: skip
    return found


def means() -> list[Law]:
    """Rewards, lengths, differences, best of k, seeds, distinct n-grams."""

    def best(rng: Random, n: int) -> Estimate:
        answers = rng.exponential(size=(n, 8))
        return best_of_k(answers, answers, [8])[8]

    def nll(rng: Random, n: int) -> Estimate:
        tokens = 10 + rng.exponential(40, n)
        sums = 8 + tokens * rng.gamma(4, 0.25, n)
        return mean_estimate(per_token(sums, tokens, np.arange(n)), bounds=(0.0, math.inf))

    def vocabulary(rng: Random, n: int) -> list[str]:
        return [" ".join(f"w{min(word, 400)}" for word in rng.zipf(1.4, 12)) for _ in range(n)]

    def distinct_1(texts: list[str]) -> float:
        return distinct(texts, n=1)

    truths = {n: np.mean([distinct_1(vocabulary(np.random.default_rng(i), n)) for i in range(300)]) for n in (20, 50)}
    draws: list[tuple[str, float, Callable[[Random, int], np.ndarray]]] = [
        ("normal", 0.0, lambda r, n: r.normal(size=n)),
        ("Student's t with 3 degrees", 0.0, lambda r, n: r.standard_t(3, size=n)),
        ("exponential", 1.0, lambda r, n: r.exponential(size=n)),
        ("difference of two lognormals", 0.0, lambda r, n: r.lognormal(size=n) - r.lognormal(size=n)),
    ]
    found = [
        Law("mean", data, truth, lambda r, n, d=draw: mean_estimate(d(r, n)), (10, *SIZES) if "log" in data else SIZES,
            "fewer than 20 skewed values" if "log" in data else "")
        for data, truth, draw in draws
    ]  # fmt: skip
    found += [
        Law("mean", "lognormal", math.exp(0.5), lambda r, n: mean_estimate(r.lognormal(size=n)),
            miss="heavy tail: no distribution-free interval of an unbounded mean exists"),
        Law("mean", "scores in [0, 1], beta(4, 1)", 0.8, lambda r, n: mean_estimate(r.beta(4, 1, n), bounds=(0.0, 1.0))),
        Law("mean", "nine zeros in ten, in [0, 1]", 0.05,
            lambda r, n: mean_estimate((r.random(n) < 0.1) * r.random(n), bounds=(0.0, 1.0))),
        Law("likelihood per token", "10 tokens and more, longer ones likelier", 1.16, nll),
        Law("best of 8", "exponential answers", sum(1 / k for k in range(1, 9)), best),
        Law("over seeds", "normal", 0.0, lambda r, n: over_seeds(r.normal(size=n)), (2, 3, 5)),
    ]  # fmt: skip
    found += [
        Law("distinct-1", f"words of Zipf's law, {n} texts", float(truth),
            lambda r, n: left_out(vocabulary(r, n), distinct_1), (n,))
        for n, truth in truths.items()
    ]  # fmt: skip
    return found


def divergences() -> list[Law]:
    """r normal with mean ±δ²/2 and deviation δ, under the policy and under the reference; and prompts that differ."""
    found = []
    for kind, delta in (("near", 0.3), ("middle", 0.9), ("far", 3.0)):
        kl = delta**2 / 2

        def both(rng: Random, n: int, d: float = delta) -> tuple[np.ndarray, np.ndarray]:
            return rng.normal(d * d / 2, d, n), rng.normal(-d * d / 2, d, n)

        def term(x: float, d: float = delta) -> float:
            return float(stats.norm.pdf(x)) * (math.log(2) - math.log1p(math.exp(-d * x - d * d / 2)))

        js = float(integrate.quad(term, -10, 10)[0])
        found += [
            Law("KL", f"{kind}: {kl:.3f} nats", kl, lambda r, n, b=both: reverse_kl(*b(r, n))),
            Law("forward KL", f"{kind}: {kl:.3f} nats", kl, lambda r, n, b=both: forward_kl(*b(r, n))),
            Law("Jensen-Shannon", f"{kind}: {js:.3f} nats", js, lambda r, n, b=both: jensen_shannon(*b(r, n))),
        ]

    def heavy(rng: Random, n: int) -> Estimate:
        each = np.exp(rng.normal(0, 2, n))
        deviation = np.sqrt(2 * each)
        return reverse_kl(rng.normal(each, deviation), rng.normal(-each, deviation))

    why = "a few prompts carry an unbounded mean"
    return [*found, Law("KL", "prompts' own lognormal, log deviation 2", math.exp(2), heavy, miss=why)]


def calibrations() -> list[Law]:
    """Margins of models that are calibrated, and two and three times too sure."""

    def margins(rng: Random, n: int, sure: float) -> np.ndarray:
        size = rng.exponential(1.5, n)
        return sure * np.where(rng.random(n) < probability(size), size, -size)

    found = []
    for sure in (1.0, 2.0, 3.0):
        many = margins(np.random.default_rng(7), 400_000, sure)
        kind = "calibrated" if sure == 1 else f"{sure:g} times too sure"
        found += [
            Law("temperature", kind, sure, lambda r, n, s=sure: temperature_estimate(margins(r, n, s))),
            Law("NLL", kind, float(negative_log_likelihood(many).mean()),
                lambda r, n, s=sure: mean_estimate(negative_log_likelihood(margins(r, n, s)), bounds=(0.0, math.inf))),
            Law("Brier score", kind, float(brier(many).mean()),
                lambda r, n, s=sure: mean_estimate(brier(margins(r, n, s)), bounds=(0.0, 1.0))),
        ]  # fmt: skip
        for n in SIZES:
            bins, judged = max(1, min(10, n // 5)), margin_confidence(many)
            truth = debiased_error(judged, bins=bins).value if sure > 1 else 0.0
            found.append(
                Law("calibration error", kind, truth,
                    lambda r, n, s=sure: debiased_error(margin_confidence(margins(r, n, s))), (n,),
                    "the truth is the edge of what can be" if sure == 1 else "")
            )  # fmt: skip
    return found


def played(rng: Random, n: int, strengths: np.ndarray) -> np.ndarray:
    """Preferences of all pairs on n prompts, by Bradley-Terry."""
    k = len(strengths)
    won = (rng.random((n, k, k)) < 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))).astype(float)
    upper = np.triu(np.ones((k, k), dtype=bool), 1)
    table = np.where(upper, won, 0.0)
    return table + np.where(upper, 1 - table, 0.0).transpose(0, 2, 1)


def tournaments() -> list[Law]:
    """Ratings and length-controlled win rates."""

    def rating(rng: Random, n: int, strengths: np.ndarray) -> Estimate:
        games = games_of(played(rng, n, strengths))
        try:
            return bradley_terry(games, len(strengths))[0]
        except ValueError:  # somebody never lost
            return bradley_terry(games, len(strengths), prior=1.0)[0]

    def controlled(rng: Random, n: int) -> Estimate:
        longer = rng.normal(100, 300, n)
        chance = 1 / (1 + np.exp(-(0.3 + np.tanh(longer / longer.std(ddof=1)))))
        return length_controlled_win_rate((rng.random(n) < chance) * 1.0, longer, np.zeros(n)).win_rate

    laws = {"3 equal": np.zeros(3), "3, one dominates": np.array([2.0, 0, 0]), "5 spread": np.linspace(1, -1, 5)}
    found = [
        Law("rating", kind, float((s - s.mean())[0]), lambda r, n, s=s: rating(r, n, s)) for kind, s in laws.items()
    ]
    return [
        *found,
        Law("length-controlled win rate", "log-odds .3", float(probability(np.array([0.3]))[0]), controlled),
    ]


def fronts() -> list[Law]:
    """Hypervolume of runs that are all the same: where luck makes a front."""

    def volume(rng: Random, n: int, runs: int) -> Estimate:
        scores = rng.normal(0.5, 0.4, size=(runs, n, 2))
        return volume_over_prompts(scores, np.zeros(2), rng=rng, resamples=FRONT_DRAWS)

    return [Law("hypervolume", f"{k} identical runs", 0.25, lambda r, n, k=k: volume(r, n, k)) for k in (1, 3, 6)]


def laws() -> list[Law]:
    """Every row of the table."""
    return [*shares(), *means(), *divergences(), *calibrations(), *tournaments(), *fronts()]
