"""Tells which reward functions are objectives and which only inform the estimator."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from align.errors import RunError
from align.rewards.texts import calls_of
from align.runs.parts import read_part
from align.weighting.estimator import batch_of, scaled
from align.weighting.single_stream import prompt_hash

logger = logging.getLogger(__name__)

SILENT = 3  # batches in a row without one number
DIGIT = 2**24
"""Whole numbers below it are exact in float32, which rewards travel in."""


class PromptDigit:
    """An auxiliary column: a digit to the base 2**24 of 48 bits of the prompt's hash. Two of them name the prompt."""

    aux = "prompt"

    def __init__(self, place: int) -> None:
        self.place, self.__name__ = place, f"prompt_digit_{place}"

    def __call__(self, prompts: Sequence[Any], **_: Any) -> list[float]:
        """One number for each completion."""
        start = 3 * self.place
        return [float(int.from_bytes(prompt_hash(p)[start : start + 3], "big")) for p in prompts]


class ToolCalls:
    """An auxiliary column: how many tools a completion calls, for strata (arXiv:2510.06214)."""

    aux = "tool_calls"
    __name__ = "number_of_calls"

    def __call__(self, completions: Sequence[Any], **_: Any) -> list[float]:
        """One number for each completion."""
        return [float(calls_of(completion)) for completion in completions]


BESIDE: dict[str, list[Any]] = {"prompt": [PromptDigit(0), PromptDigit(1)], "tool_calls": [ToolCalls()]}
"""Auxiliary columns that a trainer brings with it, by what an estimator asks for."""


class RewardColumns:
    """The columns of the gathered rewards, by what they are for.

    Args:
        functions: Reward functions in the order of the columns. One with an attribute `aux` is no objective.
        names: Theirs.
    """

    def __init__(self, functions: Sequence[Any], names: Sequence[str]) -> None:
        self.functions, self.names = list(functions), list(names)
        self.aux = {i: f.aux for i, f in enumerate(functions) if getattr(f, "aux", None) is not None}
        self.columns = [i for i in range(len(self.names)) if i not in self.aux]
        self.objectives = [self.names[i] for i in self.columns]
        self.silent = [0] * len(self.names)

    def problems(self) -> list[str]:
        """What keeps these functions from being told apart."""
        found = []
        if not self.names:
            found.append("reward_funcs: none is given; give at least one")
        elif not self.objectives:
            found.append("reward_funcs: every one has an attribute `aux`; at least one must be an objective")
        doubled = sorted({name for name in self.names if self.names.count(name) > 1})
        if doubled:
            told = ", ".join(map(repr, doubled))
            found.append(f"reward_funcs: {told} twice; give each function a `__name__` of its own, and each model a "
                         "`config.name_or_path`")  # fmt: skip
        return found

    def split(
        self, table: Float[Tensor, "batch functions"]
    ) -> tuple[Float[Tensor, "batch objectives"], dict[str, Float[Tensor, " batch"]]]:
        """Rewards of the objectives and auxiliary columns by name; several of one name are digits, the highest first."""
        table = table.double().cpu()
        aux: dict[str, Tensor] = {}
        for column, name in self.aux.items():
            aux[name] = aux[name] * DIGIT + table[:, column] if name in aux else table[:, column]
        return table[:, self.columns], aux

    def look_at(self, table: Float[Tensor, "batch functions"]) -> None:
        """Warn once of a function that gives no number, for which training goes on as if it were not there.

        Raises:
            ValueError: If a reward is infinite.
        """
        infinite = [name for name, bad in zip(self.names, table.isinf().any(dim=0), strict=True) if bad]
        if infinite:
            raise ValueError(f"rewards must be finite, or None; {', '.join(infinite)} gave infinity")
        nothing = table.isnan().all(dim=0).tolist()
        self.silent = [count + 1 if none else 0 for count, none in zip(self.silent, nothing, strict=True)]
        for name, count in zip(self.names, self.silent, strict=True):
            if count == SILENT:
                logger.warning(
                    "the reward %s has given no number (None or NaN) to any completion of %d batches: nothing is learnt from "
                    "it. Look at what it reads, and at what it returns", name, SILENT,
                )  # fmt: skip

    def weights(self, base: Float[Tensor, " objectives"]) -> Float[Tensor, " functions"]:
        """Weights of the objectives as weights of all columns: 0 for auxiliary ones."""
        return torch.zeros(len(self.names)).index_copy(0, torch.tensor(self.columns), base.float())

    def switch(self, *, training: bool) -> None:
        """Tell functions that remember something whether this is training."""
        for function in self._stateful().values():
            if hasattr(function, "training"):
                function.training = training

    def save(self, folder: Path, process: int) -> None:
        """Write what the functions remember into a checkpoint; nothing where none does."""
        state = {name: function.state_dict() for name, function in self._stateful().items()}
        if state:
            torch.save(state, folder / f"rewards_{process}.pt")

    def load(self, folder: Path, process: int) -> None:
        """Let them remember it.

        Raises:
            RunError: If the checkpoint does not hold it.
        """
        stateful = self._stateful()
        if not stateful:
            return
        told = f"what {', '.join(stateful)} remembers is not known"
        state = read_part(folder / f"rewards_{process}.pt", told)
        if missing := sorted(stateful.keys() - state.keys()):
            raise RunError(f"{folder}: holds nothing that the reward {', '.join(missing)} remembers; start anew")
        for name, function in stateful.items():
            function.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        named = zip(self.names, self.functions, strict=True)
        return {name: f for name, f in named if hasattr(f, "state_dict") and not isinstance(f, nn.Module)}


def weighted_sum(
    rewards: Float[Tensor, "batch columns"], weights: Float[Tensor, " columns"]
) -> Float[Tensor, " batch"]:
    """The rewards that a completion has, weighted and added; NaN where it has none."""
    return (rewards * weights).nansum(dim=1).where(~rewards.isnan().all(dim=1), torch.nan)


def over_batch(learnt: Float[Tensor, " batch"], scored: Bool[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Standardised over the completions that have a reward; 0 for the others."""
    moments = batch_of(learnt.where(scored, torch.nan)[:, None])
    return scaled(moments.centred, moments.std, "batch")[:, 0]


def raise_problems(problems: Sequence[str]) -> None:
    """Raise ValueError with all problems, one line each, if there are any."""
    if problems:
        raise ValueError("\n".join(problems))
