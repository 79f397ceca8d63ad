"""Estimates advantages from the rewards of a generation batch, one column for each objective.

An estimator sees the rewards of all processes, (batch, objectives), completions of a prompt next to each other, NaN where
an objective does not apply. It treats every objective by itself, so that advantages weighted are linear in the weights;
a missing reward has the advantage 0, that of an average one. Equal rewards give equal advantages on every process.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .estimator import Columns, Estimator, Rewards, batch_of, groups, moments, one_of, scaled, within
from .ranks import fronts
from .single_stream import SingleStream


class Group(Estimator):
    """A reward less the mean of its prompt's completions (GRPO, Shao et al. 2024, arXiv:2402.03300).

    Deviation from the paper for several objectives: each is centred and scaled by itself, before it is weighted. That is GDPO
    (Liu et al. 2026, arXiv:2601.05242) without its last step, which scales the sum by the batch.

    Args:
        scale: Divide by the standard deviation of the prompt's completions ("group", where weights mean relative
            importance in such units), by that of the whole batch ("batch"), or not at all ("none").
        standardise: "before_weighting"; "gdpo", which is GDPO whole: the weighted sum is standardised once more, over the batch;
            or "after_weighting", the sum of weighted rewards alone, as the authors of arXiv:2509.11452 do. A rule still sees each
            objective by itself.
    """

    def __init__(self, scale: str = "group", standardise: str = "before_weighting") -> None:
        self.scale = one_of("scale", scale, "group", "batch", "none")
        self.scale_free = scale != "none"
        one_of("standardise", standardise, "before_weighting", "gdpo", "after_weighting")
        self.after_weighting, self.scales_sum = standardise == "after_weighting", standardise == "gdpo"
        if standardise != "before_weighting" and scale == "none":
            raise ValueError(f"standardise: {standardise!r} scales, got scale 'none'; leave one of them out")

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        group = moments(rewards, groups(rewards, group_size))
        return scaled(group.centred, group.std if self.scale == "group" else batch_of(rewards).std, self.scale)


class LeaveOneOut(Estimator):
    """A reward less the mean of the prompt's other completions (RLOO, Ahmadian et al. 2024, arXiv:2402.14740)."""

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        group = moments(rewards, groups(rewards, group_size))
        return group.centred * group.number / (group.number - 1.0).clamp(min=1.0)


class Batch(Estimator):
    """A reward less a baseline that is the same for every prompt: REINFORCE, and REINFORCE++ (Hu 2025, arXiv:2501.03262).

    Args:
        baseline: "mean" of the batch, or "running": an exponential average of the means of earlier batches (of the first
            batch, for itself), which does not depend on the rewards that it is subtracted from.
        decay: Of the running average, in [0, 1).
        scale: "batch" divides by the standard deviation of the batch, which with the mean makes it REINFORCE++; "none".
    """

    compares = False

    def __init__(self, baseline: str = "mean", decay: float = 0.9, scale: str = "batch") -> None:
        self.baseline = one_of("baseline", baseline, "mean", "running")
        self.decay = within("decay", decay, "[0, 1)")
        self.scale = one_of("scale", scale, "batch", "none")
        self.scale_free = scale != "none" and baseline == "mean"
        self.running: Tensor | None = None

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        centred, std, _ = batch_of(rewards)
        if self.baseline == "running":
            mean = rewards.nanmean(dim=0)
            before = mean if self.running is None else self.running
            known = before.where(~before.isnan(), mean)
            centred = (rewards - known).nan_to_num(nan=0.0)
            self.running = torch.where(mean.isnan(), known, self.decay * known + (1.0 - self.decay) * mean)
        return scaled(centred, std, self.scale)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102 - see `Estimator`
        return {"running": self.running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: D102
        self.running = state["running"]


class Stratified(Estimator):
    """Stratified advantage normalisation: completions are compared with those of their own kind (arXiv:2510.06214).

    alpha * A_stratum + (1 - alpha) * A_group, where strata are the completions of a prompt with the same value of an
    auxiliary column (number of tool calls, length bucket, language). A completion alone in its stratum has A_stratum 0,
    which the second term is for. The default alpha is ours.

    Args:
        key: Name of the auxiliary column.
        alpha: Share of the comparison within strata, in [0, 1].
        scale: "group" divides each term by the standard deviation it belongs to; "none".
    """

    def __init__(self, key: str = "stratum", alpha: float = 0.5, scale: str = "group") -> None:
        self.needs = (key,)
        self.alpha = within("alpha", alpha, "[0, 1]")
        self.scale = one_of("scale", scale, "group", "none")
        self.scale_free = scale != "none"

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        group = groups(rewards, group_size)
        kinds = torch.stack([group.to(rewards), aux[self.needs[0]].to(rewards)])
        strata = torch.unique(kinds, dim=1, return_inverse=True)[1]
        terms = [scaled(part.centred, part.std, self.scale) for part in (moments(rewards, s) for s in (strata, group))]
        return self.alpha * terms[0] + (1.0 - self.alpha) * terms[1]


class ParetoRank(Estimator):
    """How many fronts of the prompt's completions lie above a completion, negated and centred (after arXiv:2310.00386).

    It has no scale and follows fronts of any shape. Every column is the same, so that weights only multiply it. The
    paper's sampler is another method; this is its labelling, ranked. A missing reward counts as the mean of its group.

    Args:
        scale: "group" divides by the standard deviation of the prompt's ranks; "none".
    """

    per_objective = False
    scale_free = True

    def __init__(self, scale: str = "group") -> None:
        self.scale = one_of("scale", scale, "group", "none")

    def _of(self, rewards: Rewards, group_size: int, aux: Columns) -> Rewards:
        group = groups(rewards, group_size)
        filled = moments(rewards, group).centred.view(-1, group_size, rewards.size(1))
        scored = ~rewards.isnan().all(dim=1, keepdim=True)
        ranks = fronts(filled, scored.view(-1, group_size)).view(-1, 1).to(rewards.dtype)
        ranked = moments((-ranks).where(scored, torch.nan), group)
        return scaled(ranked.centred, ranked.std, self.scale).expand_as(rewards).contiguous()


ESTIMATORS: dict[str, type[Estimator]] = {
    "group": Group, "leave_one_out": LeaveOneOut, "batch": Batch, "stratified": Stratified,
    "single_stream": SingleStream, "pareto_rank": ParetoRank,
}  # fmt: skip


def estimator_options(name: str) -> dict[str, Any]:
    """Options of an estimator and their defaults. ValueError if there is no such estimator; with the nearest name."""
    known = inspect.signature(ESTIMATORS[one_of("estimator", name, *ESTIMATORS)]).parameters
    return {key: parameter.default for key, parameter in known.items()}


def make_estimator(name: str, **options: Any) -> Estimator:
    """An estimator by name. ValueError if the name, an option or its value is none there is; with the nearest name."""
    for option in options:
        one_of(f"option of {name}", option, *estimator_options(name))
    return ESTIMATORS[one_of("estimator", name, *ESTIMATORS)](**options)
