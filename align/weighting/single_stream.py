"""Compares an answer with what its prompt has earned before: single-stream policy optimisation (arXiv:2509.13232)."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from .estimator import Columns, Estimator, Rewards, batch_of, one_of, scaled, within

RHO = (0.875, 0.96)
"""Between these the paper keeps a rho that follows the policy."""
HALVING_DRIFT = 0.06
FLOOR = 0.05
"""Added to the uncertainty of every prompt, so that each is drawn at times."""


class SingleStream(Estimator):
    """One completion of each prompt against what this prompt has earned before (SPO, arXiv:2509.13232).

    For each prompt and objective a, b with the value v = a / (a + b); the advantage is r - v, then a <- rho a + r and
    b <- rho b + 1 - r. With several objectives there is one table for each. The paper's settings are `rho: kl`,
    `prompts: uncertain`, `prior_count: 8` and an `initial` file of 8 answers to each prompt; the defaults are a constant rho,
    prompts drawn evenly, and a prompt's first value `prior`, held as firmly as `prior_count` samples.

    Args:
        rho: In (0, 1]; 1 / (1 - rho) samples is what it remembers. Or "kl": 2^(-D / halving_drift) within [0.875, 0.96], where
            D is the mean over the tokens of the prompt's answer before of the absolute change of their log-probabilities since
            it was given, in nats; 0 at a first visit. Deviation: D is to the policy that gives the new answer, and the authors'
            code takes the policy after the step.
        prior: In [0, 1].
        prior_count: Positive.
        scale: "batch" divides by the batch's standard deviation after centring, as the paper does; "none".
        prompts: "even", each once an epoch; or "uncertain": for each generation batch prompts are drawn without replacement
            with weights sqrt(v (1 - v)) + 0.05, of the objective whose value is the most uncertain. An epoch is then only a
            number of batches. Deviation: a prompt never seen has the weight of `prior`, in the authors' code none.
        halving_drift: Positive, in nats a token; with `rho: kl` only.
        initial: A file of `alignkit score` in which prompts have answers with rewards named as the objectives; a relative path is
            from the working directory. Of n answers with the sum S of rewards a = prior_count (S + prior) / (n + 1) and
            b = prior_count (n - S + 1 - prior) / (n + 1); a prompt without answers begins as it would without the file.
    """

    needs = ("prompt",)
    compares = False
    only_one = True

    def __init__(
        self,
        rho: float | str = 0.9,
        prior: float = 0.5,
        prior_count: float = 1.0,
        scale: str = "batch",
        prompts: str = "even",
        halving_drift: float = HALVING_DRIFT,
        initial: str | None = None,
    ) -> None:
        self.reads_drift = rho == "kl"
        if isinstance(rho, str) and not self.reads_drift:
            raise ValueError(f"rho: must be a number in (0, 1] or 'kl', got {rho!r}")
        self.rho = rho if isinstance(rho, str) else within("rho", rho, "(0, 1]")
        self.prior = within("prior", prior, "[0, 1]")
        self.prior_count = within("prior_count", prior_count, "(0, inf)")
        self.scale = one_of("scale", scale, "batch", "none")
        self.draws = one_of("prompts", prompts, "even", "uncertain") == "uncertain"
        self.halving_drift = within("halving_drift", halving_drift, "(0, inf)")
        if halving_drift != HALVING_DRIFT and not self.reads_drift:
            raise ValueError("halving_drift: only rho 'kl' reads it; leave it out")
        self.initial = {} if initial is None else read_initial(initial)
        self.table: dict[int, Tensor] = {}
        self.answers: dict[int, tuple[Tensor, Tensor]] = {}
        """By prompt, with `rho: kl`: the last answer's token ids and their log-probabilities, NaN where a tool wrote them."""

    def begin(self, objectives: Sequence[str]) -> None:  # noqa: D102 - see `Estimator`
        for prompt, rewards in self.initial.items():
            if missing := [name for name in objectives if name not in rewards]:
                raise ValueError(f"estimator_options: initial: has no rewards named {missing[0]}; there are "
                                 f"{', '.join(rewards) or 'none'}; score its answers by it")  # fmt: skip
            of_each = [self._counts(rewards[name]) for name in objectives]
            self.table[prompt] = torch.tensor(of_each, dtype=torch.float64).T.contiguous()

    def _counts(self, rewards: Sequence[float]) -> tuple[float, float]:
        number, total = len(rewards), math.fsum(rewards)
        firm = self.prior_count / (number + 1)
        return firm * (total + self.prior), firm * (number - total + 1.0 - self.prior)

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        wrong = rewards[(rewards < 0.0) | (rewards > 1.0)]
        if len(wrong):
            raise ValueError(f"single_stream: rewards must be in [0, 1], got {wrong[0]:g}; rescale them")
        first = rewards.new_tensor([[self.prior], [1.0 - self.prior]]).expand(2, rewards.size(1)) * self.prior_count
        prompts = [int(prompt) for prompt in aux["prompt"].tolist()]
        values = torch.stack([counts[0] / counts.sum(dim=0) for counts in (self.table.get(p, first) for p in prompts)])
        for prompt, reward, rho in zip(prompts, rewards, self._rhos(aux, len(prompts)), strict=True):
            counts = self.table.get(prompt, first)
            after = rho * counts + torch.stack([reward, 1.0 - reward])
            self.table[prompt] = after.where(~reward.isnan(), counts)
        gained = rewards - values
        centred, std, _ = batch_of(gained)
        return scaled(centred, std, "batch") if self.scale == "batch" else gained.nan_to_num(nan=0.0)

    def _rhos(self, aux: Columns, number: int) -> list[float]:
        if isinstance(self.rho, str):
            return [min(max(2.0 ** (-drift / self.halving_drift), RHO[0]), RHO[1]) for drift in aux["drift"].tolist()]
        return [self.rho] * number

    def uncertainty(self, prompts: Sequence[int]) -> Float[np.ndarray, " prompts"]:
        """What prompts are drawn by: sqrt(v (1 - v)) + 0.05, of the objective where that is the largest."""
        unseen = torch.tensor([[self.prior], [1.0 - self.prior]], dtype=torch.float64)
        counts = (self.table.get(prompt, unseen) for prompt in prompts)
        return np.array([float(((a * b).sqrt() / (a + b)).max()) + FLOOR for a, b in counts])

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        counts = list(self.table.values())
        answers = {"answers": self.answers} if self.reads_drift else {}
        return {"prompts": list(self.table), "counts": torch.stack(counts) if counts else None, **answers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        self.table = dict(zip(state["prompts"], [] if state["counts"] is None else state["counts"], strict=True))
        self.answers = dict(state.get("answers", {}))


def prompt_hash(prompt: Any) -> bytes:
    """The sha256 of a prompt, a text or messages."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def prompt_number(prompt: Any) -> int:
    """The 48 bits of a prompt's hash that name it in the table."""
    return int.from_bytes(prompt_hash(prompt)[:6], "big")


def read_initial(path: str) -> dict[int, dict[str, list[float]]]:
    """Rewards of each prompt's answers by name, from a file of `alignkit score`; one that is None is left out.

    Raises:
        ValueError: If the file cannot be read, has no such rows, or a reward that is not in [0, 1].
    """
    if not os.path.isfile(path):
        raise ValueError(f"initial: no such file, got {path!r}; write it by `alignkit sample` and `alignkit score`")
    found: dict[int, dict[str, list[float]]] = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                prompt, answers = row["prompt"], [dict(rewards) for rewards in row["rewards"]]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"initial: {path}:{number}: must be a row of `alignkit score`, with a prompt and rewards of "
                                 "each completion by name") from None  # fmt: skip
            for rewards in answers:
                for name, reward in rewards.items():
                    kept = found.setdefault(prompt_number(prompt), {}).setdefault(name, [])
                    if reward is not None:
                        share = float(reward) if isinstance(reward, int) else reward
                        kept.append(within(f"initial: {path}:{number}: {name}", share, "[0, 1]"))
    return found


def check_initial(data: Any, estimator: SingleStream) -> str | None:
    """How many training prompts have no scored answers to begin with, in words; of a stream of rows nothing is known.

    Raises:
        ValueError: If none has: the answers are to other prompts.
    """
    if not estimator.initial or not isinstance(data, Dataset):
        return None
    numbers = {prompt_number(prompt) for prompt in data["prompt"]}
    without = len(numbers - estimator.initial.keys())
    if without == len(numbers):
        raise ValueError(
            "estimator_options: initial: none of its prompts is in the training set; sample answers to those"
        )
    return f"estimator_options: initial: {without} of {len(numbers)} prompts have no answers there" if without else None
