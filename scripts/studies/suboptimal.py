"""Shows on a bandit what on-policy samples and a negative gradient are worth when the data are far from what is wanted.

Run: `python scripts/studies/suboptimal.py [-o FOLDER]`. A few seconds on one core. Writes suboptimal.json and suboptimal.png.

A hundred answers, of which the 70th is best. The loss is -log π(best of N) + push · log π(worst of N), in expectation: nothing
is sampled. `tilted` policies are the data's law times e^(θa), so that a push moves all answers; a `table` has a logit for each.
After Tajwar et al. 2024, "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data" (arXiv:2404.14367), whose
bandit this resembles; its policies and data are ours.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ANSWERS = np.arange(100.0)
REWARD = np.exp(-(((ANSWERS - 70) / 10) ** 2))
N = 10
RATES = {"tilted": 0.002, "table": 5.0}
CELLS = {"off, push 0": (0, 0.0), "off, push ½": (0, 0.5), "on, push 0": (1, 0.0), "on, push ½": (1, 0.5)}
"""Steps between fresh samples, 0 for never, and the negative gradient."""


def data_of(family: str) -> np.ndarray:
    """The law of the answers that the data have, which the policy begins with."""
    law = np.exp(-0.5 * ((ANSWERS - 20) / 8) ** 2) if family == "tilted" else 1 / (1 + ((ANSWERS - 20) / 5) ** 2)
    return law / law.sum()


def extreme_of(law: np.ndarray, *, best: bool) -> np.ndarray:
    """The law of the best, or the worst, of N answers; those that are equally good share their mass in proportion."""
    _, group = np.unique(REWARD if best else -REWARD, return_inverse=True)
    mass = np.bincount(group, law)
    extreme = np.diff(np.cumsum(mass) ** N, prepend=0.0)
    return law * (extreme / np.maximum(mass, 1e-300))[group]


def learnt(family: str, every: int, push: float, steps: int) -> list[float]:
    """Expected reward after each step, the beginning first.

    Args:
        family: A key of `RATES`.
        every: Steps after which answers are sampled anew; 0 for never.
        push: Of the negative gradient.
        steps: Of plain gradient descent.
    """
    data = data_of(family)
    parameters = np.zeros(1 if family == "tilted" else len(ANSWERS))
    features = ANSWERS[None] if family == "tilted" else np.eye(len(ANSWERS))
    policy, sampled = data, data
    rewards = [float(policy @ REWARD)]
    for step in range(steps):
        if every and step % every == 0:
            sampled = policy
        towards = extreme_of(sampled, best=True) - policy
        away = extreme_of(sampled, best=False) - policy
        parameters = parameters + RATES[family] * features @ (towards - push * away)
        logits = np.log(data) + parameters @ features
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        rewards.append(float(policy @ REWARD))
    return rewards


def drawn(curves: dict[str, dict[str, list[float]]]) -> Figure:
    """Reward against steps, a panel a family."""
    figure = Figure(figsize=(8, 3.2), dpi=130, layout="constrained")
    for axes, (family, cells) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for index, (name, rewards) in enumerate(cells.items()):
            axes.plot(
                range(1, len(rewards)),
                rewards[1:],
                label=name,
                color=("#8a8f98", "#1f6feb")[name.startswith("on")],
                linestyle=("-", "--")[index % 2],
            )
        axes.set(title=family, xlabel="steps", ylim=(0, 1.02), xlim=(1, 200), xscale="log")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("expected reward")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Compute, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parents[1] / "bench" / "results")
    out = parser.parse_args(argv).out
    curves = {
        family: {name: learnt(family, every, push, 200) for name, (every, push) in CELLS.items()} for family in RATES
    }
    shown = {
        family: {name: {n: round(c[n], 6) for n in (10, 20, 50, 100, 200)} for name, c in cells.items()}
        for family, cells in curves.items()
    }
    intervals = {every or "never": round(learnt("tilted", every, 0.0, 50)[-1], 6) for every in (1, 5, 20, 0)}
    found = {"reward_after_steps": shown, "tilted_50_steps_push_0_by_steps_between_samples": intervals}
    out.mkdir(parents=True, exist_ok=True)
    (out / "suboptimal.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    drawn(curves).savefig(out / "suboptimal.png")


if __name__ == "__main__":
    main()
