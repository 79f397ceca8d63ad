"""Shows on a bandit what it is worth to retrain a reward model on answers of the policy that it steers, and PARL's gradient.

Run: `python scripts/studies/bilevel.py [-o FOLDER]`. Half a minute on one core. Writes bilevel.json and bilevel.png.

Sixty answers on a line, which the reference takes mostly from the left; the true reward is a hill in the middle. The reward model
is a cubic, learnt from Bradley-Terry labels of the true reward with a small decay, and fits only where its labels are. In each of 20 rounds the policy goes a fifth of the way, in logits, to the optimum
of the reward model, π_ref exp(r/β)/Z, 32 pairs of its answers are labelled, and every n rounds the model is fitted anew to all
labels so far. `never` has all 640 labels from the start, from the reference. Forty seeds; intervals are over seeds.

PARL (Chakraborty et al. 2023, arXiv:2308.02585) asks for the gradient of the label loss G on pairs of π*(ν), the optimum under
the model ν: besides ∂G/∂ν it has a part through π*. `hypergradient` has both, in closed form for a bandit (the policy of the
paper is learnt and the part estimated). A descent on G itself shows what the part does: G falls further, because pairs become
easier and not because the model is better.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from study_parts.as_json import shown
from torch import Tensor

from align.losses import Pair
from align.losses.pairwise import soft_dpo_loss
from eval.statistics.intervals import over_seeds

ANSWERS, ROUNDS, PAIRS, SEEDS, STEP, DECAY = 60, 20, 32, 40, 0.2, 0.01
EVERY = {"never": 0, "every 10": 10, "every 5": 5, "every round": 1}
"""Rounds after which the reward model is fitted anew; 0 for once, at the start."""


class Bandit(NamedTuple):
    """Answers of one prompt."""

    ref: Tensor
    """Their law in the reference."""
    features: Tensor
    """What the reward model reads, shape (answers, features)."""
    truth: Tensor
    """Their true reward in nats of a Bradley-Terry law."""
    beta: float

    def optimum(self, weights: Tensor) -> Tensor:
        """π_ref exp(r/β)/Z for the reward model with these weights."""
        return (self.ref.log() + self.features @ weights / self.beta).log_softmax(0).exp()

    def label_loss(self, weights: Tensor) -> Tensor:
        """Of each ordered pair of answers the expected loss of the true law's label, shape (answers, answers)."""
        rewards = self.features @ weights
        first, second = torch.broadcast_tensors(rewards[:, None], rewards[None])
        wins = torch.sigmoid(self.truth[:, None] - self.truth[None])
        return soft_dpo_loss(Pair(first.flatten(), second.flatten()), wins.flatten()).view_as(wins)


def line() -> Bandit:
    """The bandit of the study."""
    x = torch.linspace(-1, 1, ANSWERS, dtype=torch.float64)
    features = torch.stack([x, x**2, x**3], dim=1)
    return Bandit((-4 * (x + 0.8) ** 2).softmax(0), features, 4 * torch.exp(-(((x + 0.1) / 0.4) ** 2)), 0.4)


def hypergradient(bandit: Bandit, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts of dG/dν, G the expected label loss on pairs of π*(ν): with the pairs' law held, and through it.

    The second is E ℓ(y, y') (s(y) + s(y')), s the score of π*, (φ - E φ)/β. Its mean over pairs of one loss is 0.

    Returns:
        Two vectors, shape (features,).
    """
    policy = bandit.optimum(weights)
    held = weights.clone().requires_grad_()
    (direct,) = torch.autograd.grad(policy @ bandit.label_loss(held) @ policy, held)
    score = (bandit.features - policy @ bandit.features) / bandit.beta
    weighed = policy[:, None] * policy * bandit.label_loss(weights)
    return direct, weighed.sum(1) @ score + weighed.sum(0) @ score


def descended(bandit: Bandit, *, whole: bool, steps: int = 300, rate: float = 0.5) -> dict[str, float]:
    """Label loss on the policy's pairs and on the reference's, and true reward, after a descent on G with or without the second part."""
    weights = torch.zeros(bandit.features.shape[1], dtype=torch.float64)
    for _ in range(steps):
        direct, through = hypergradient(bandit, weights)
        weights = weights - rate * (direct + through if whole else direct)
    policy, losses = bandit.optimum(weights), bandit.label_loss(weights)
    return {
        "label loss, policy's pairs": float(policy @ losses @ policy),
        "label loss, reference's pairs": float(bandit.ref @ losses @ bandit.ref),
        "reward": float(policy @ bandit.truth),
    }


def fitted(bandit: Bandit, first: Tensor, second: Tensor, wins: Tensor) -> Tensor:
    """Weights of the reward model for labels; `wins` is 1 where the first answer won."""
    weights = torch.zeros(bandit.features.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=100, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        rewards = bandit.features @ weights
        loss = soft_dpo_loss(Pair(rewards[first], rewards[second]), wins).mean() + DECAY * (weights**2).sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weights.detach()


def looped(bandit: Bandit, every: int, seed: int) -> list[float]:
    """True reward of the policy at the start and after each round."""
    rng = np.random.default_rng(seed)

    def labelled(policy: Tensor, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
        first, second = rng.choice(ANSWERS, size=(2, pairs), p=policy.numpy() / policy.numpy().sum())
        chance = torch.sigmoid(bandit.truth[first] - bandit.truth[second]).numpy()
        return torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy((rng.random(pairs) < chance) * 1.0)

    policy = bandit.ref
    known = labelled(policy, PAIRS if every else PAIRS * ROUNDS)
    weights = fitted(bandit, *known)
    rewards = [float(policy @ bandit.truth)]
    for number in range(1, ROUNDS + 1):
        policy = ((1 - STEP) * policy.log() + STEP * bandit.optimum(weights).log()).log_softmax(0).exp()
        rewards.append(float(policy @ bandit.truth))
        if every and number < ROUNDS:
            known = tuple(torch.cat(both) for both in zip(known, labelled(policy, PAIRS), strict=True))
            if number % every == 0:
                weights = fitted(bandit, *known)
    return rewards


def over(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean over seeds with its interval."""
    return shown(over_seeds(values))


def drawn(curves: dict[str, np.ndarray], most: float) -> Figure:
    """True reward by round, mean and 95% interval over seeds."""
    figure = Figure(figsize=(5.5, 3.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for (name, rows), colour in zip(curves.items(), ("#8a8f98", "#bf8700", "#1f6feb", "#bf3989"), strict=True):
        found = [over(column) for column in rows.T[1:]]
        steps = range(1, len(found) + 1)
        axes.plot(steps, [one["value"] for one in found], color=colour, label=f"reward model fitted anew: {name}")
        axes.fill_between(steps, *([one[end] for one in found] for end in ("low", "high")), color=colour, alpha=0.15)
    axes.axhline(most, color="black", linewidth=0.8, linestyle=":", label="optimum of the true reward less β KL")
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="round", ylabel="true reward")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Compute, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parents[1] / "bench" / "results")
    out, bandit = parser.parse_args(argv).out, line()
    curves = {name: np.array([looped(bandit, n, seed) for seed in range(SEEDS)]) for name, n in EVERY.items()}
    best = (bandit.ref.log() + bandit.truth / bandit.beta).log_softmax(0).exp()
    ends = {name: rows[:, -1] for name, rows in curves.items()}
    told: dict[str, Any] = {
        "reward of the reference": round(float(bandit.ref @ bandit.truth), 4),
        "reward of the optimum": round(float(best @ bandit.truth), 4),
        "reward after all rounds": {name: over(values) for name, values in ends.items()},
        "minus never": {name: over(values - ends["never"]) for name, values in ends.items() if name != "never"},
        "best round less the last": {name: over(rows.max(1) - rows[:, -1]) for name, rows in curves.items()},
        "descent on the label loss": {
            name: {key: round(value, 4) for key, value in descended(bandit, whole=whole).items()}
            for name, whole in (("pairs' law held", False), ("PARL's gradient", True))
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "bilevel.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    drawn(curves, told["reward of the optimum"]).savefig(out / "bilevel.png")


if __name__ == "__main__":
    main()
