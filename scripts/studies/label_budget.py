"""Shows when many cheap labels are worth more than a few good ones, for a linear reward learnt from pairs.

Run: `python scripts/studies/label_budget.py [-o FOLDER]`. About a minute on one core. Writes label_budget.json and label_budget.png.

Answers have eight features, and the truth is a Bradley-Terry law of a linear reward. A weak label is that law's draw, flipped at
a rate (`NoisyScorer`); a clean one is not flipped, and costs as much as ten weak ones. A budget is spent in five ways, from weak
labels alone to clean ones alone, always on different pairs. Three ways to learn: `dpo` on all labels at once; `robust` at once,
told the rate, with DPO's loss on the clean ones; and in two stages, `dpo` on the weak labels, then on the clean ones with a pull
to where the first stage ended. All have a unit Gaussian prior. Forty seeds; reported are how often the reward is on the side of
the truth on 4,000 new pairs, and its cross-entropy to the truth's probabilities. The best way to spend a budget is chosen on
half of the seeds and reported on the other half.

After Mallen and Belrose 2024, "Balancing label quantity and quality for scalable elicitation" (arXiv:2410.13215), whose labels are
classes and whose models are language models; price and mixes resemble theirs.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from study_parts.as_json import shown
from torch import Tensor

from align.judges.scorers import NoisyScorer, RewardScorer
from align.losses import Pair, dpo_loss, robust_dpo_loss
from eval.statistics.intervals import over_seeds

FEATURES, HELD_OUT, SEEDS, PRICE = 8, 4000, 40, 10
BUDGETS, FLIPS, SHARES = (80, 320, 1280), (0.1, 0.2, 0.3, 0.4), (0.0, 0.25, 0.5, 0.75, 1.0)
"""In prices of a weak label; rates; shares of a budget that are spent on clean labels."""
WAYS = ("dpo", "robust", "two stages")


def information(flip: float, margin: float = 0.0) -> float:
    """Fisher information of a flipped Bradley-Terry label about the margin."""
    p = 1 / (1 + math.exp(-margin))
    q = (1 - flip) * p + flip * (1 - p)
    return ((1 - 2 * flip) * p * (1 - p)) ** 2 / (q * (1 - q))


def spent(budget: int, share: float) -> tuple[int, int]:
    """Weak and clean labels for a budget."""
    clean = round(budget * share / PRICE)
    return budget - PRICE * clean, clean


def labelled(truth: np.ndarray, pairs: int, flip: float, seed: int) -> Tensor:
    """Features of the winner less those of the loser, by a scorer that is mistaken at a rate; shape (pairs, features)."""
    rng = np.random.default_rng(seed)
    sides, draws = rng.standard_normal((pairs, 2, FEATURES)) / math.sqrt(2), rng.random(pairs)

    def reward(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(sides[tuple(map(int, one.split()))] @ truth) for one in completions]

    scorer = NoisyScorer(RewardScorer(reward, temperature=1.0), flip=flip, seed=seed)
    wins = np.array([scorer.prefer(str(k), [f"{k} 0", f"{k} 1"])[0, 1] for k in range(pairs)])
    gap = sides[:, 0] - sides[:, 1]
    return torch.from_numpy(np.where((draws < wins)[:, None], gap, -gap))


def fitted(weak: Tensor, clean: Tensor, flip: float, way: str) -> Tensor:
    """Rewards of all seeds, shape (seeds, features), from labels of shape (seeds, pairs, features)."""
    centre = torch.zeros(len(weak), FEATURES, dtype=torch.float64)
    stages = [(weak, weak[:, :0]), (weak[:, :0], clean)] if way == "two stages" else [(weak, clean)]
    for cheap, good in stages:
        weights = centre.clone().requires_grad_()
        solver = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

        def total(
            cheap: Tensor = cheap, good: Tensor = good, weights: Tensor = weights, centre: Tensor = centre
        ) -> Tensor:
            margins = [torch.einsum("spf,sf->sp", gaps, weights) for gaps in (cheap, good)]
            of_weak, of_clean = (Pair(margin.flatten(), torch.zeros_like(margin.flatten())) for margin in margins)
            noisy = robust_dpo_loss(of_weak, label_smoothing=flip) if way == "robust" else dpo_loss(of_weak)
            return noisy.sum() + dpo_loss(of_clean).sum() + 0.5 * ((weights - centre) ** 2).sum()

        def closure(solver: torch.optim.LBFGS = solver, total: Any = total) -> Tensor:
            solver.zero_grad()
            value = total()
            value.backward()
            return value

        solver.step(closure)
        centre = weights.detach()
    return centre


def figures(truths: np.ndarray, weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """By seed: how often the reward is on the side of the truth, and its cross-entropy to the truth's law in nats."""
    right, entropy = [], []
    for seed, (truth, mine) in enumerate(zip(truths, weights.numpy(), strict=True)):
        gaps = np.random.default_rng(90_000 + seed).standard_normal((HELD_OUT, FEATURES))
        margin, wanted = gaps @ mine, 1 / (1 + np.exp(-gaps @ truth))
        right.append(float(np.mean((margin > 0) == (wanted > 0.5))))
        entropy.append(float(np.mean(wanted * np.logaddexp(0, -margin) + (1 - wanted) * np.logaddexp(0, margin))))
    return np.array(right), np.array(entropy)


def studied(budgets: Sequence[int] = BUDGETS, flips: Sequence[float] = FLIPS, seeds: int = SEEDS) -> dict[str, Any]:
    """All figures, by rate, budget, way and share."""
    truths = np.random.default_rng(0).standard_normal((seeds, FEATURES))
    most = max(budgets)
    clean = torch.stack([labelled(truth, most // PRICE, 0.0, 1000 + k) for k, truth in enumerate(truths)])
    told: dict[str, Any] = {
        "weak labels worth a clean one, at a tie": {str(e): round(information(0) / information(e), 4) for e in flips},
        "curves": {},
        "best": {},
    }
    for flip in flips:
        weak = torch.stack([labelled(truth, most, flip, 5000 + k) for k, truth in enumerate(truths)])
        for budget in budgets:
            found = {}
            for way in WAYS:
                for share in SHARES:
                    cheap, good = spent(budget, share)
                    right, entropy = figures(truths, fitted(weak[:, :cheap], clean[:, :good], flip, way))
                    found[way, share] = right, entropy
                    told["curves"].setdefault(str(flip), {}).setdefault(str(budget), {}).setdefault(way, {})[str(share)] = {
                        "weak": cheap, "clean": good, "accuracy": over(right), "cross-entropy": over(entropy),
                    }  # fmt: skip
            told["best"].setdefault(str(flip), {})[str(budget)] = {way: best(found, way) for way in WAYS}
    return told


def best(found: dict[tuple[str, float], tuple[np.ndarray, np.ndarray]], way: str) -> dict[str, Any]:
    """The share of clean labels that is best on every second seed, and on the others its gain over either end."""
    accuracy = {share: found[way, share][0] for share in SHARES}
    taken = max(SHARES, key=lambda share: accuracy[share][::2].mean())
    rest = {share: values[1::2] for share, values in accuracy.items()}
    return {
        "share": taken,
        "accuracy": over(rest[taken]),
        "minus weak alone": over(rest[taken] - rest[0.0]),
        "minus clean alone": over(rest[taken] - rest[1.0]),
    }


def over(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean over seeds with its interval."""
    return shown(over_seeds(values))


def drawn(told: dict[str, Any]) -> Figure:
    """Accuracy against the share of clean labels, a panel a rate, a colour a budget, a dash a way."""
    figure = Figure(figsize=(10, 3.3), dpi=130, layout="constrained")
    colours, dashes = ("#8a8f98", "#1f6feb", "#bf3989"), ("-", "--", ":")
    curves = told["curves"]
    for axes, (flip, by_budget) in zip(
        figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves.items(), strict=True
    ):
        for colour, (budget, by_way) in zip(colours, by_budget.items(), strict=False):
            for dash, (way, points) in zip(dashes, by_way.items(), strict=True):
                values = [one["accuracy"]["value"] for one in points.values()]
                axes.plot(list(map(float, points)), values, dash, color=colour, label=f"{budget}, {way}")
                if way == "dpo":
                    ends = [[one["accuracy"][end] for one in points.values()] for end in ("low", "high")]
                    axes.fill_between(list(map(float, points)), *ends, color=colour, alpha=0.15, linewidth=0)
        axes.set(title=f"flipped {float(flip):.0%}", xlabel="share spent on clean labels")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("accuracy on new pairs")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize="small",
    )
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Compute, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parents[1] / "bench" / "results")
    out = parser.parse_args(argv).out
    told = studied()
    out.mkdir(parents=True, exist_ok=True)
    (out / "label_budget.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    drawn(told).savefig(out / "label_budget.png")


if __name__ == "__main__":
    main()
