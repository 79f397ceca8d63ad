"""Estimates advantages from the rewards of a generation batch, one column for each objective.

An estimator sees the rewards of all processes, (batch, objectives), completions of a prompt next to each other, NaN where
an objective does not apply. It treats every objective by itself, so that advantages weighted are linear in the weights;
a missing reward has the advantage 0, that of an average one. Equal rewards give equal advantages on every process.
"""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .ranks import fronts

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
    compares: ClassVar[bool] = True  # completions of one prompt, so that it needs at least two
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

    def state_dict(self) -> dict[str, Any]:
        """What it remembers of earlier batches."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""


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


def groups(rewards: Rewards, group_size: int) -> Int[Tensor, " batch"]:
    """Number of the prompt of each completion."""
    return torch.arange(rewards.size(0)) // group_size


def batch_of(rewards: Rewards) -> Moments:
    """Moments of the whole batch."""
    return moments(rewards, groups(rewards, rewards.size(0)))


def scaled(centred: Rewards, std: Rewards, scale: str) -> Rewards:
    """Divided by the standard deviation, unless scale is "none"."""
    return centred if scale == "none" else centred / (std + EPS)


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
