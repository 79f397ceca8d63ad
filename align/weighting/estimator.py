"""Declares what every estimator of advantages answers, and the moments and checks of options that estimators share."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Rewards: TypeAlias = Float[Tensor, "batch objectives"]
Columns: TypeAlias = Mapping[str, Float[Tensor, " batch"]]

EPS = 1e-4
"""Added to every standard deviation, as TRL does."""


class Moments(NamedTuple):
    """Statistics of the segment a reward lies in, one for each reward. `centred` is 0 where the reward is missing."""

    centred: Rewards
    std: Rewards
    number: Rewards


def moments(rewards: Rewards, segments: Int[Tensor, " batch"]) -> Moments:
    """Rewards less their segment's mean, its standard deviation (n - 1), and how many it is of; missing ones left out."""
    present = ~rewards.isnan()
    empty = rewards.new_zeros(int(segments.max()) + 1, rewards.size(1))
    count = empty.index_add(0, segments, present.to(rewards.dtype))
    mean = empty.index_add(0, segments, rewards.where(present, 0.0)) / count.clamp(min=1.0)
    centred = (rewards - mean[segments]).where(present, 0.0)
    variance = empty.index_add(0, segments, centred.square()) / (count - 1.0).clamp(min=1.0)
    return Moments(centred, variance.sqrt()[segments], count[segments])


class Estimator:
    """What the estimators share. `needs` are the auxiliary columns it reads, by name."""

    needs: tuple[str, ...] = ()
    reads_drift: bool = False  # `aux` has the column `drift`, which the trainer measures
    compares: ClassVar[bool] = True  # completions of one prompt, so that it needs at least two
    only_one: ClassVar[bool] = False  # completion of each prompt is what it is for
    per_objective: ClassVar[bool] = True  # its columns differ
    scale_free: bool = False  # rewards multiplied by a number leave its advantages as they are
    after_weighting: bool = False  # what is learnt from is the advantage of the weighted sum of rewards
    scales_sum: bool = False  # what is learnt from is the weighted sum of advantages, standardised over the batch

    def __call__(self, rewards: Rewards, *, group_size: int, aux: Columns) -> Rewards:
        """Advantages of the rewards of all processes, `group_size` for each prompt; `aux` has the columns in `needs`.

        Raises:
            ValueError: If rewards are outside the range that the estimator is defined on.
        """
        return self._of(rewards, group_size, aux)

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        raise NotImplementedError

    def begin(self, objectives: Sequence[str]) -> None:
        """Take up the objectives' names, before the first batch.

        Raises:
            ValueError: If it knows of other objectives only.
        """

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of earlier batches."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""


def number_problems(name: str, estimator: Estimator, answers: int | None, *, one_allowed: bool) -> list[str]:
    """What keeps an estimator from so many completions of each prompt; `one_allowed` says whether the method has one."""
    if estimator.only_one and (answers != 1 or not one_allowed):
        return [f"estimator: {name!r} is for one completion of each prompt, got num_generations={answers}; use method: "
                "reinforce (ReinforceConfig) with num_generations: 1, which no other method allows"]  # fmt: skip
    if estimator.compares and answers == 1:
        return [f"estimator: {name!r} compares completions of a prompt, and num_generations is 1; use method: reinforce "
                "(ReinforceConfig) with 'batch' or 'single_stream', or more completions"]  # fmt: skip
    if answers == 1 and not one_allowed:
        return [f"num_generations: one completion of each prompt is method: reinforce (ReinforceConfig), with estimator {name!r}, "
                "too; use it, or num_generations from 2"]  # fmt: skip
    return []


def groups(rewards: Rewards, group_size: int) -> Int[Tensor, " batch"]:
    """Number of the prompt of each completion."""
    return torch.arange(rewards.size(0)) // group_size


def batch_of(rewards: Rewards) -> Moments:
    """Moments of the whole batch."""
    return moments(rewards, groups(rewards, rewards.size(0)))


def scaled(centred: Rewards, std: Rewards, scale: str) -> Rewards:
    """Divided by the standard deviation, unless scale is "none"."""
    return centred if scale == "none" else centred / (std + EPS)


def one_of(what: str, given: Any, *known: str) -> Any:
    """The value, if it is one of those; else ValueError with the nearest."""
    if given not in known:
        near = difflib.get_close_matches(str(given), known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
        raise ValueError(f"{what}: unknown, got {given!r}; {remedy}")
    return given


def within(what: str, given: Any, interval: str) -> float:
    """The value, if it is a number in the interval, written as [0, 1) is; else ValueError with the interval."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not (
        number
        and low <= given <= high
        and (given != low or interval[0] == "[")
        and (given != high or interval[-1] == "]")
    ):
        raise ValueError(f"{what}: must be a number in {interval}, got {given!r}")
    return given
