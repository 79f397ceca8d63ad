"""Draws what each reward is worth for each prompt of a step, and says it to the policy after the prompt."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from align.data.prompts.control import appended, preference_context, tenths


class PromptWeights:
    """Weights of rewards for the prompts of a step: of one prompt the same in the whole step, on every process.

    They follow from seed, step and prompt, so that a resumed run draws what it would have drawn. What the policy reads are
    tenths, and these are what rewards are weighed by.

    Source: Jain et al. 2023, "Multi-objective GFlowNets" (arXiv:2210.12765), the preference-conditional form.

    Args:
        names: Of the rewards, two or more.
        concentration: Of the Dirichlet law.
        seed: Of the run.

    Raises:
        ValueError: If there are fewer than two rewards.
    """

    def __init__(self, names: Sequence[str], concentration: float, seed: int) -> None:
        if len(names) < 2:
            raise ValueError(
                "prompt_weights: weighs two reward functions or more; give them as rewards, or leave it out"
            )
        self.names, self.concentration, self.seed = list(names), concentration, seed
        self.asked: list[Any] = []
        """Prompts of the rows at hand, as the data have them."""
        self.weights: Float[Tensor, "rows rewards"] = torch.empty(0, len(self.names))
        """Of the rows at hand."""

    def draw(self, prompt: Any, step: int) -> list[float]:
        """The weights of a prompt in a step, in tenths, of sum 1."""
        text = json.dumps([self.seed, step, prompt], sort_keys=True)
        rng = np.random.default_rng(list(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()))
        return tenths(rng.dirichlet([self.concentration] * len(self.names)).tolist())

    def of_pairs(self, accelerator: Accelerator) -> Float[Tensor, "pairs rewards"]:
        """The weights of all processes' pairs, whose two rows stand beside each other."""
        every: Any = accelerator.gather(self.weights.to(accelerator.device))
        return every[::2]

    def told(self, rows: Sequence[Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
        """The rows with their weights written after the prompt; the weights are held until the next call."""
        self.asked = [row["prompt"] for row in rows]
        drawn = [self.draw(prompt, step) for prompt in self.asked]
        self.weights = torch.tensor(drawn)
        return [
            {**row, "prompt": appended(row["prompt"], preference_context(dict(zip(self.names, weights, strict=True))))}
            for row, weights in zip(rows, drawn, strict=True)
        ]
