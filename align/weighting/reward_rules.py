"""Weighs objectives by rewards only, which costs nothing beside the batch."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .base import MeansRule, Statistics, Weighting, WeightingRule, flag, in_range

Base = Sequence[float] | Float[Tensor, " objectives"]


class Fixed(WeightingRule):
    """The base weights, always."""

    def update(self, stats: Statistics) -> Weighting:
        """The base weights."""
        return Weighting(self.base.float())


class Schedule(WeightingRule):
    """Weights that move along straight lines from the base weights at step 0 through given points, then stay.

    Args:
        base: The weights at step 0; given again by a point at step 0, that point counts.
        points: Pairs of a step and the weights at that step, in increasing order of steps. They need not keep the sum
            of the base weights.
    """

    def __init__(self, base: Base, points: Sequence[Sequence[int | Sequence[float]]]) -> None:
        super().__init__(base)
        if not points or any(len(point) != 2 for point in points):
            raise ValueError(f"points: at least one pair [step, weights], got {points!r}")
        steps, weights = zip(*points, strict=True)
        if any(not isinstance(step, int) or step < 0 for step in steps) or list(steps) != sorted(set(steps)):
            raise ValueError(f"points: steps are whole numbers of at least 0 and increase, got {list(steps)}")
        if any(len(row) != len(self.base) for row in weights):
            raise ValueError(f"points: {len(self.base)} weights at each step, got {list(weights)}")
        for row in weights:
            WeightingRule(row)
        first = [] if steps[0] == 0 else [(0, self.base.tolist())]
        self._steps = np.array([step for step, _ in first] + list(steps), dtype=float)
        self._weights = np.array([row for _, row in first] + list(weights), dtype=float)

    def update(self, stats: Statistics) -> Weighting:
        """The weights at `stats.step`."""
        return Weighting(torch.tensor([np.interp(stats.step, self._steps, row) for row in self._weights.T]).float())


class Dirichlet(WeightingRule):
    """Weights drawn anew at each step, the base weights on average; the baseline of preference-conditioned methods.

    Args:
        base: Positive weights, the mean of the distribution.
        concentration: Mean parameter of the Dirichlet distribution: 1 with equal base weights is uniform over the
            simplex, small values give nearly all weight to one objective, large ones stay near the base weights.
        seed: The draw depends on it and on the step alone, so a resumed run and every process draw the same.
    """

    def __init__(self, base: Base, concentration: float = 1.0, seed: int = 0) -> None:
        super().__init__(base)
        _positive(self.base, "the mean of a Dirichlet distribution")
        concentration = in_range("concentration", concentration, 0.0, 1e6, above=True)
        self._parameters = (concentration * len(self.base) * self.base / self.base.sum()).numpy()
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed: a whole number of at least 0, got {seed!r}")
        self._seed = seed

    def update(self, stats: Statistics) -> Weighting:
        """The weights drawn for `stats.step`."""
        drawn = np.random.default_rng([self._seed, stats.step]).dirichlet(self._parameters)
        return Weighting(self.on_simplex(torch.from_numpy(drawn)))


class MaxMin(MeansRule):
    """All weight to the objective with the lowest mean, or more of it: max over π of min_k v_k.

    The multi-reward step of MaxMin-RLHF (Chakraborty et al. 2024, arXiv:2402.08925). Raw means are compared, so the
    rewards need commensurate scales: it equalises values, whatever their units.

    Args:
        base: The weights until every objective has been measured; where a soft rule begins.
        soft: Mirror ascent, w_k ← w_k exp(-step v_k) / Z, instead of all weight to the lowest (ties share).
        step: Step of the soft rule, in units of 1 / reward.
        floor: Share of the weight that is spread evenly, so that no objective is forgotten, in [0, 1).
    """

    remembered = ("measured", "log_shares")

    def __init__(self, base: Base, soft: bool = False, step: float = 0.1, floor: float = 0.0) -> None:
        super().__init__(base)
        self.soft = flag("soft", soft)
        self.step = in_range("step", step, 0.0, 1e6)
        self.floor = in_range("floor", floor, 0.0, 1.0, below=True)
        self.log_shares = (self.base / self.base.sum()).log()

    def update(self, stats: Statistics) -> Weighting:
        """Weights from the means of this batch."""
        means = self.measure(stats.means)
        if means is None:
            return Weighting(self.base.float())
        if self.soft:
            self.log_shares = (self.log_shares - self.step * means).log_softmax(0)
            shares = self.log_shares.exp()
        else:
            lowest = (means == means.min()).double()
            shares = lowest / lowest.sum()
        return Weighting(
            self.on_simplex((1 - self.floor) * shares + self.floor / len(shares)),
            metrics={"lowest_objective": float(means.min())},
        )


def kept(values: Float[Tensor, " objectives"], retain: float) -> Float[Tensor, " objectives"]:
    """What is left of each value where its share `retain` is to be kept, below it for negative values, too."""
    return values - (1 - retain) * values.abs()


class Barrier(MeansRule):
    """One objective is maximised, the others are kept above thresholds by a log barrier.

    The gradient of v_l + (1/t) Σ_k log(v_k - d_k) as weights: w_l = 1 and w_k = 1 / (t (v_k - d_k)), the extension
    step of C-MORL (Liu et al. 2024, arXiv:2410.02236). They do not keep the sum of the base weights, which count only
    until every objective has been measured. Deviations: barrier terms are summed, not averaged, so t does not change
    its meaning with K; a threshold relative to the start is v - (1 - retain) |v|, since retain · v lies above a
    negative v.

    Args:
        base: The weights until every objective has been measured.
        target: Index l of the objective to be maximised.
        thresholds: d_k, one for each objective (the target's is not used and may be None), in units of the rewards.
        retain: Without thresholds: the share of the first measured value that each objective is to keep, in [0, 1];
            None is 0.9.
        sharpness: t; large values let an objective come closer to its threshold.
        least_slack: v_k - d_k counts as at least this, also when the threshold is violated, so that w_k ≤ 1/(t slack).
    """

    remembered = ("measured", "start")

    def __init__(
        self,
        base: Base,
        target: int,
        thresholds: Sequence[float | None] | None = None,
        retain: float | None = None,
        sharpness: float = 20.0,
        least_slack: float = 1e-3,
    ) -> None:
        super().__init__(base)
        count = len(self.base)
        if not isinstance(target, int) or not 0 <= target < count:
            raise ValueError(f"target: the index of an objective, 0 to {count - 1}, got {target!r}")
        if thresholds is not None and retain is not None:
            raise ValueError(f"retain: not used with thresholds, got {retain}; give one of them")
        self.target = target
        self.retain = in_range("retain", 0.9 if retain is None else retain, 0.0, 1.0)
        self.sharpness = in_range("sharpness", sharpness, 0.0, 1e9, above=True)
        self.least_slack = in_range("least_slack", least_slack, 0.0, 1e9, above=True)
        self.start = torch.full_like(self.base, torch.nan)
        self.thresholds = None
        if thresholds is not None:
            if len(thresholds) != count:
                raise ValueError(f"thresholds: one for each of the {count} objectives, got {list(thresholds)}")
            given = [0.0 if index == target else value for index, value in enumerate(thresholds)]
            checked = [in_range(f"thresholds[{index}]", value, -1e30, 1e30) for index, value in enumerate(given)]
            self.thresholds = torch.tensor(checked, dtype=torch.float64)

    def update(self, stats: Statistics) -> Weighting:
        """Weights from the means of this batch."""
        means = self.measure(stats.means)
        if means is None:
            return Weighting(self.base.float())
        if self.start.isnan().any():
            self.start = means
        thresholds = self.thresholds
        if thresholds is None:
            thresholds = kept(self.start, self.retain)
        slack = means - thresholds
        weights = 1 / (self.sharpness * slack.clamp_min(self.least_slack))
        weights[self.target] = 1.0
        slack[self.target] = torch.inf
        return Weighting(weights.float(), metrics={"least_slack": float(slack.min())})


class PAMA(WeightingRule):
    """EXPERIMENTAL: per completion, the weighted advantage nearest 0 if all objectives agree in sign, else 0.

    The closed form of min over c in the simplex of (Σ c_k a_k)² (He and Maghsudi 2025, arXiv:2508.07768), read per
    completion: minmod. Caveat: making this bound 0 is not Pareto stationarity. On a bandit it stalls at (0.542, 0.542)
    where (0.584, 0.584) is reachable, and with `noon` the uniform policy is a fixed point as soon as no arm beats the
    mean in all objectives. UPGrad on the Gram matrix of the advantages costs as little and does not stall.

    Args:
        base: Positive weights, which scale the objectives before they are compared.
        noon: "No negative": advantages below 0 count as 0 first, so the result is min_k max(w_k a_k, 0).
    """

    def __init__(self, base: Base, noon: bool = False) -> None:
        super().__init__(base)
        _positive(self.base, "an objective of weight 0 would make every advantage 0")
        self.noon = flag("noon", noon)

    def update(self, stats: Statistics) -> Weighting:
        """The base weights; `combine` does the work."""
        return Weighting(self.base.float())

    def combine(
        self, advantages: Float[Tensor, "batch objectives"], weights: Float[Tensor, " objectives"]
    ) -> Float[Tensor, " batch"]:
        """The projection of 0 onto [min_k w_k a_k, max_k w_k a_k]; columns should have comparable scales."""
        weighted = advantages * weights.to(advantages)
        if self.noon:
            weighted = weighted.clamp_min(0.0)
        return weighted.amin(1).clamp_min(0.0) + weighted.amax(1).clamp_max(0.0)


def _positive(base: Float[Tensor, " objectives"], why: str) -> None:
    if not (base > 0).all():
        raise ValueError(f"weights: all must be positive ({why}), got {base.tolist()}")
