"""Weighs objectives by the volume dominated by all objective vectors seen so far."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .archive import Archive, Point, has_moocore
from .base import MeansRule, Statistics, Weighting, flag, in_range, one_of

Base = Sequence[float] | Float[Tensor, " objectives"]
Reference = Sequence[float] | str | None
LARGEST_WITHOUT_MOOCORE = 3
PROBE = 1e-4
"""Step of the finite differences, as a share of an objective's range; exact away from kinks."""


def meta_factor(gain: float, low: float = 0.5, high: float = 2.0) -> float:
    """The factor low + (high - low) tanh(gain), in [low, high) for a hypervolume gain of at least 0 (arXiv:2509.11452)."""
    return low + (high - low) * math.tanh(gain)


class _Archived(MeansRule):
    """What both rules share: a new objective vector now and then, and the archive it is held against.

    Args:
        base: The weights.
        bounds: [worse, better] for each objective, in units of the rewards; they normalise it.
        reference: The worst corner of the volume, in units of the rewards; None is the worse bounds, "first" the first
            vector measured. A vector worse than it in any objective adds no volume.
        source: Objective vectors are the mean rewards of training batches ("rewards") or of evaluations
            ("evaluation"). An evaluation that is equal to the one before counts as the same.
        smoothing: Share of the old vector in the new one, in [0, 1); for "rewards" only. None is 0.9 there: without
            it, the archive collects the luckiest batches.
    """

    remembered = ("measured", "last")

    def __init__(
        self,
        base: Base,
        bounds: Sequence[Sequence[float]],
        reference: Reference = None,
        source: str = "rewards",
        smoothing: float | None = None,
    ) -> None:
        self.source = one_of("source", source, ("rewards", "evaluation"))
        if source == "evaluation" and smoothing is not None:
            raise ValueError(f"smoothing: for source rewards only, got {smoothing}; an evaluation is taken as it is")
        super().__init__(base, smoothing=0.0 if source == "evaluation" else 0.9 if smoothing is None else smoothing)
        count = len(self.base)
        if len(bounds) != count or any(len(pair) != 2 or pair[0] == pair[1] for pair in bounds):
            raise ValueError(f"bounds: [worse, better], different, for each of {count} objectives, got {bounds!r}")
        if count > LARGEST_WITHOUT_MOOCORE and not has_moocore():
            raise ValueError(
                f"the hypervolume of {count} objectives needs moocore: pip install 'alignkit[pareto]' "
                f"(up to {LARGEST_WITHOUT_MOOCORE} objectives work without)"
            )
        self.bounds = np.array(bounds, dtype=float)
        corner = None
        self.archive = Archive(self.bounds, None)
        if reference is None:
            corner = np.zeros(count)
        elif isinstance(reference, str):
            one_of("reference", reference, ("first",))
        elif len(reference) != count:
            raise ValueError(f"reference: one value for each of {count} objectives, or first, got {reference!r}")
        else:
            corner = self.archive.normalise(np.array(reference, dtype=float))
        if not np.isfinite(self.bounds).all() or (corner is not None and not np.isfinite(corner).all()):
            raise ValueError(f"bounds and reference: finite numbers, got {bounds!r} and {reference!r}")
        self.archive.reference = corner
        self.last = torch.full_like(self.base, torch.nan)

    def new_point(self, stats: Statistics) -> Point | None:
        """The normalised objective vector, if there is a new one and it is complete."""
        values = stats.means if self.source == "rewards" else stats.evaluation
        if values is None or not values.isfinite().any():
            return None
        if self.source == "evaluation":
            values = values.detach().double().cpu()
            if torch.allclose(values, self.last, rtol=0.0, atol=0.0, equal_nan=True):
                return None
            self.last = values
        measured = self.measure(values)
        return None if measured is None else self.archive.normalise(measured.numpy())

    def metrics(self, gain: float) -> dict[str, float]:
        return {
            "hypervolume": self.archive.volume,
            "hypervolume_gain": gain,
            "front_size": float(len(self.archive.points)),
        }

    def state_dict(self) -> dict[str, Any]:
        archive = self.archive.state_dict()
        return super().state_dict() | {"points": archive["points"], "reference": archive["reference"] or []}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        rest = {name: value for name, value in state.items() if name not in ("points", "reference")}
        super().load_state_dict(rest)
        self.archive.load_state_dict({"points": state["points"], "reference": state["reference"] or None})


class Hypervolume(_Archived):
    """Fixed weights whose advantages grow with the hypervolume that the latest objective vector adds.

    m = low + (high - low) tanh(gain ΔHV) (Lu et al. 2025, arXiv:2509.11452; there 0.5, 2 and 1), with m = 1 for the
    first vector. Deviation: the paper multiplies rewards by m. Wherever advantages are divided by a standard
    deviation, as in the authors' own GRPO and REINFORCE runs, m then cancels; here it multiplies advantages after
    normalisation. `literal` is the paper's form: `Weighting.reward_factor` is m, `scale` stays 1. The paper's volume
    is in raw units with lengths in tokens; here objectives are normalised by `bounds`, so `gain` may have to be large.

    Args:
        base: The weights.
        bounds: See `_Archived`.
        reference: See `_Archived`; the paper's is "first", the untrained model's validation.
        source: See `_Archived`; the paper's is "evaluation", after every step.
        smoothing: See `_Archived`.
        gain: Multiplies ΔHV.
        low: m without progress, at least 0.
        high: Supremum of m.
        literal: Multiply rewards, not advantages.
    """

    remembered = ("measured", "last", "opened", "factor")

    def __init__(
        self,
        base: Base,
        bounds: Sequence[Sequence[float]],
        reference: Reference = None,
        source: str = "rewards",
        smoothing: float | None = None,
        gain: float = 1.0,
        low: float = 0.5,
        high: float = 2.0,
        literal: bool = False,
    ) -> None:
        super().__init__(base, bounds, reference, source, smoothing)
        self.gain = in_range("gain", gain, 0.0, 1e9, above=True)
        self.low = in_range("low", low, 0.0, 1e6)
        self.high = in_range("high", high, self.low, 1e6, above=True)
        self.literal = flag("literal", literal)
        self.opened = False
        self.factor = 1.0

    def update(self, stats: Statistics) -> Weighting:
        """The base weights and the factor; it stays as it is until there is a new objective vector."""
        point, gain = self.new_point(stats), 0.0
        if point is not None:
            gain = self.archive.add(point)
            self.factor = meta_factor(self.gain * gain, self.low, self.high) if self.opened else 1.0
            self.opened = True
        metrics = self.metrics(gain) | {"meta_factor": self.factor}
        scale, reward_factor = (1.0, self.factor) if self.literal else (self.factor, 1.0)
        return Weighting(self.base.float(), scale, metrics, reward_factor)


class HypervolumeGradient(_Archived):
    """Weights along the gradient of the hypervolume: w_k ∝ ∂HV/∂v_k at the latest objective vector.

    Own extension of the idea. A vector that enlarges the volume is pushed where the volume grows fastest; for one that
    adds none the gradient is 0 and the base weights are used. Where objectives conflict, the points already passed make
    it walk along the front, towards an end of it: the archive is the result, not the last policy. Derivatives are with respect to the raw rewards, so a
    change of a reward's unit (and of its bounds) changes nothing.

    Args:
        base: The weights where the gradient is 0.
        bounds: See `_Archived`; worse below better, because rewards are maximised.
        reference: See `_Archived`.
        source: See `_Archived`.
        smoothing: See `_Archived`.
    """

    remembered = ("measured", "last", "shares")

    def __init__(
        self,
        base: Base,
        bounds: Sequence[Sequence[float]],
        reference: Reference = None,
        source: str = "rewards",
        smoothing: float | None = None,
    ) -> None:
        super().__init__(base, bounds, reference, source, smoothing)
        if (self.bounds[:, 0] > self.bounds[:, 1]).any():
            raise ValueError(f"bounds: lower before upper, got {bounds!r}; rewards are maximised, so negate the reward")
        self.shares = self.base / self.base.sum()

    def update(self, stats: Statistics) -> Weighting:
        """Weights at the latest objective vector; they stay until there is a new one."""
        point, gain = self.new_point(stats), 0.0
        if point is not None:
            gain = self.archive.gain(point)
            probes = [self.archive.gain(point + PROBE * unit) - gain for unit in np.eye(len(point))]
            slopes = torch.from_numpy(np.array(probes) / (self.bounds[:, 1] - self.bounds[:, 0])).clamp_min(0.0)
            self.archive.add(point)
            self.shares = slopes / slopes.sum() if gain > 0 and slopes.any() else self.base / self.base.sum()
        return Weighting(self.on_simplex(self.shares), metrics=self.metrics(gain))
