"""Compares an answer with what its prompt has earned before: single-stream policy optimisation (arXiv:2509.13232)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .estimator import Columns, Estimator, Rewards, batch_of, one_of, scaled, within


class SingleStream(Estimator):
    """One completion of each prompt against what this prompt has earned before (SPO, arXiv:2509.13232).

    For each prompt and objective a, b with the value v = a / (a + b); the advantage is r - v, then a <- rho a + r and
    b <- rho b + 1 - r. Deviations from the paper: rho is constant (the paper adapts it to the policy's drift within
    [0.875, 0.96]), prompts are drawn evenly, and there are no offline samples before the run: a prompt's first value is
    `prior`, held as firmly as `prior_count` samples. With several objectives there is one table for each.

    Args:
        rho: In (0, 1]. 1 / (1 - rho) samples is what it remembers.
        prior: In [0, 1].
        prior_count: Positive.
        scale: "batch" divides by the batch's standard deviation after centring, as the paper does; "none".
    """

    needs = ("prompt",)
    compares = False
    only_one = True

    def __init__(self, rho: float = 0.9, prior: float = 0.5, prior_count: float = 1.0, scale: str = "batch") -> None:
        self.rho = within("rho", rho, "(0, 1]")
        self.prior = within("prior", prior, "[0, 1]")
        self.prior_count = within("prior_count", prior_count, "(0, inf)")
        self.scale = one_of("scale", scale, "batch", "none")
        self.table: dict[int, Tensor] = {}

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        wrong = rewards[(rewards < 0.0) | (rewards > 1.0)]
        if len(wrong):
            raise ValueError(f"single_stream: rewards must be in [0, 1], got {wrong[0]:g}; rescale them")
        first = rewards.new_tensor([[self.prior], [1.0 - self.prior]]).expand(2, rewards.size(1)) * self.prior_count
        prompts = [int(prompt) for prompt in aux["prompt"].tolist()]
        values = torch.stack([counts[0] / counts.sum(dim=0) for counts in (self.table.get(p, first) for p in prompts)])
        for prompt, reward in zip(prompts, rewards, strict=True):
            counts = self.table.get(prompt, first)
            after = self.rho * counts + torch.stack([reward, 1.0 - reward])
            self.table[prompt] = after.where(~reward.isnan(), counts)
        gained = rewards - values
        centred, std, _ = batch_of(gained)
        return scaled(centred, std, "batch") if self.scale == "batch" else gained.nan_to_num(nan=0.0)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        counts = list(self.table.values())
        return {"prompts": list(self.table), "counts": torch.stack(counts) if counts else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        self.table = dict(zip(state["prompts"], [] if state["counts"] is None else state["counts"], strict=True))
