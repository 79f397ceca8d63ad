"""Defines what a weighting rule is told and what it answers."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Statistics(NamedTuple):
    """What is known of K objectives when a batch has been generated and scored; equal on every process.

    Attributes:
        means: Mean raw reward of each objective over the generation batch of all processes; NaN where no reward applied.
        step: Optimizer steps done.
        gram: J Jᵀ for the gradients J of the objectives (K rows), or Aᵀ A / B for their advantages.
        halves: (J₁ J₂ᵀ + J₂ J₁ᵀ) / 2 for the gradients on two independent halves of the batch: J Jᵀ without bias.
        evaluation: Mean raw reward of each objective in the latest evaluation.
    """

    means: Float[Tensor, " objectives"]
    step: int
    gram: Float[Tensor, "objectives objectives"] | None = None
    halves: Float[Tensor, "objectives objectives"] | None = None
    evaluation: Float[Tensor, " objectives"] | None = None


class Weighting(NamedTuple):
    """A rule's answer for one batch.

    Attributes:
        weights: One weight for each objective, float32 on the CPU.
        scale: Multiplies the combined advantages, after any normalisation.
        metrics: What the rule wants logged.
        reward_factor: Multiplies the rewards, before advantages are computed. Where advantages are divided by a
            standard deviation it cancels.
    """

    weights: Float[Tensor, " objectives"]
    scale: float = 1.0
    metrics: Mapping[str, float] = MappingProxyType({})
    reward_factor: float = 1.0


class WeightingRule:
    """Weights for K objectives, batch by batch.

    A rule is deterministic: the same statistics in the same order give the same answers, so every process has the same
    weights without talking to the others. Unless a rule says otherwise, its weights are not negative and keep the sum
    of the base weights, so that rules compare at equal total weight.

    Args:
        base: The weights to begin with and to fall back on, finite, not negative, not all 0.

    Raises:
        ValueError: If a base weight or an option is out of range.
    """

    needs: ClassVar[Literal["rewards", "gradients"]] = "rewards"
    """What `update` reads: means and evaluation only, or `Statistics.gram` too."""
    remembered: ClassVar[tuple[str, ...]] = ()
    """Attributes that a checkpoint keeps."""

    def __init__(self, base: Sequence[float] | Float[Tensor, " objectives"]) -> None:
        self.base = torch.as_tensor(base, dtype=torch.float64).detach().cpu()
        if self.base.ndim != 1 or not len(self.base) or not self.base.isfinite().all() or (self.base < 0).any():
            raise ValueError(f"weights: finite numbers of at least 0, one for each objective, got {list(base)}")
        if not self.base.any():
            raise ValueError("weights: all are 0, so nothing would be learnt; give at least one objective a weight")

    def update(self, stats: Statistics) -> Weighting:
        """The weights for the batch that `stats` describes; called once for each batch."""
        raise NotImplementedError

    def combine(
        self, advantages: Float[Tensor, "batch objectives"], weights: Float[Tensor, " objectives"]
    ) -> Float[Tensor, " batch"]:
        """One advantage for each completion: A @ w."""
        return advantages @ weights.to(advantages)

    def state_dict(self) -> dict[str, Any]:
        """What `update` needs to go on: tensors, numbers and lists."""
        return {name: _copy(getattr(self, name)) for name in self.remembered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            ValueError: If the state is that of another rule or of another number of objectives.
        """
        if set(state) != set(self.remembered):
            raise ValueError(
                f"the checkpoint holds the state {sorted(state)}, but {type(self).__name__} keeps "
                f"{sorted(self.remembered)}; resume with the weighting rule of the checkpoint"
            )
        for name, value in state.items():
            if isinstance(value, Tensor) and len(value) != len(self.base):
                raise ValueError(
                    f"the checkpoint's {name} is for {len(value)} objectives, this run has {len(self.base)}; resume "
                    "with the rewards of the checkpoint"
                )
            setattr(self, name, _copy(value))

    def on_simplex(self, shares: Float[Tensor, " objectives"]) -> Float[Tensor, " objectives"]:
        """Shares that sum to 1 as weights with the sum of the base weights."""
        return (shares * self.base.sum()).float()


class MeansRule(WeightingRule):
    """A rule on objective means. A mean that is missing or not finite keeps its last value.

    Args:
        base: The weights until every objective has been measured.
        smoothing: Share of the old value in each new one, in [0, 1); 0 takes the latest.
    """

    remembered = ("measured",)

    def __init__(self, base: Sequence[float] | Float[Tensor, " objectives"], smoothing: float = 0.0) -> None:
        super().__init__(base)
        self.smoothing = in_range("smoothing", smoothing, 0.0, 1.0, below=True)
        self.measured = torch.full_like(self.base, math.nan)

    def measure(self, means: Float[Tensor, " objectives"]) -> Float[Tensor, " objectives"] | None:
        """The smoothed means with these taken in, or None while an objective has never been measured."""
        new, old = means.detach().double().cpu(), self.measured
        mixed = torch.where(old.isnan(), new, self.smoothing * old + (1 - self.smoothing) * new)
        self.measured = torch.where(new.isfinite(), mixed, old)
        return None if self.measured.isnan().any() else self.measured


def in_range(name: str, value: Any, low: float, high: float, *, below: bool = False, above: bool = False) -> float:
    """An option's value if it lies in [low, high]; without `high` if `below`, without `low` if `above`.

    Raises:
        ValueError: If it does not.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits or (below and value == high) or (above and value == low):
        left, right = "(" if above else "[", ")" if below else "]"
        raise ValueError(f"{name}: a number in {left}{low:g}, {high:g}{right}, got {value!r}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """An option's value if it is True or False.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}: true or false, got {value!r}")
    return value


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """An option's value if it is among those allowed.

    Raises:
        ValueError: If it is not.
    """
    if value not in allowed:
        raise ValueError(f"{name}: one of {', '.join(allowed)}, got {value!r}")
    return value


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
