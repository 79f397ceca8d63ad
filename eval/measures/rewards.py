"""Measures what policies earn by the rewards that they were trained on, one by one and as a front.

A reward is called as the trainer calls it, with the prompts, the sampled token ids and the further columns of the data;
one value for each answer, None where it does not apply. A prompt's value is the mean over those of its answers to which
the objective applies; prompts without one are left out of that objective, and `n` counts the others.

A reward that remembers what it has seen (conciseness: shorter than the mean of all completions so far) would measure
every run by a mark of its own. Here it is made anew, is shown the reference's answers once, and learns nothing from then
on: every policy has the same mark, and what a run remembers is not touched.
"""

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from align.errors import RunError
from align.rewards import REWARDS, Reward, columns_of, make_reward
from align.rewards.load import CALLS
from eval.answers.table import Sampled
from eval.fronts.front import Front, front_of
from eval.statistics.comparisons import Compared
from eval.statistics.intervals import UNBOUNDED, Estimate
from eval.statistics.names import REF
from eval.statistics.sides import every_pair, sided_estimates

Rewards = Mapping[str, Mapping[str, Any]]
Ids = Mapping[str, Sequence[Sequence[Sequence[int]]]]
IDS = "completion_ids"
ENVIRONMENTS = "environments"
"""What TRL gives rewards besides columns, where there are environments."""


class ObjectiveReport(NamedTuple):
    """As `eval.statistics.sides.Found`, with the front of several policies."""

    estimates: dict[str, Estimate]
    """`objectives/NAME/policy`, `/ref` and `/difference`, and those of `Front.estimates`."""
    comparisons: dict[str, Compared]
    details: dict[str, Any]
    front: Front | None
    """None for one policy, or fewer than two objectives that can be measured."""


def check_objectives(
    rewards: Rewards,
    columns: Collection[str],
    *,
    where: str,
    allow: Collection[str] = (),
    reference_point: Mapping[str, float] | None = None,
) -> None:
    """Whether a set of prompts can be scored, before a weight is loaded.

    Args:
        rewards: The recipe's, by name with their options.
        columns: Of the data.
        where: What the data are called, for the message.
        allow: Rewards of the form MODULE:FUNCTION that may run.
        reference_point: The recipe's `eval.reference_point`.

    Raises:
        RunError: If a reward cannot be made, or reads a column that is not there, or the reference point is not one
            finite number for each objective.
    """
    for name, options in rewards.items():
        make_reward(name, allow, **options)
        for column in columns_of(name, **options):
            if column not in columns:
                raise RunError(
                    f"{where}: no column {column!r}, which the reward {name!r} reads; there are {', '.join(columns)}; map "
                    f"it with `columns: {{{column}: ...}}`"
                )
    if reference_point is None:
        return
    if set(reference_point) != set(rewards):
        raise RunError(
            f"eval.reference_point: must have a value for each of the rewards {', '.join(rewards) or '(none)'}, got "
            f"{', '.join(reference_point) or 'none'}"
        )
    for name, value in reference_point.items():
        if not np.isfinite(value):
            raise RunError(f"eval.reference_point.{name}: must be finite, got {value}")


def range_of(name: str | None) -> tuple[float, float]:
    """The least and the greatest that a reward of this name gives; infinite where that is not known."""
    known = None if name is None or name not in REWARDS else REWARDS[name]
    return UNBOUNDED if known is None else (float(known.low), float(known.high))


def objective_report(
    sampled: Sampled,
    rewards: Rewards,
    *,
    completion_ids: Ids | None = None,
    recipes: Mapping[str, Mapping[str, Any]] | None = None,
    allow: Collection[str] = (),
    reference_point: Mapping[str, float] | None = None,
) -> ObjectiveReport:
    """Every objective of every policy and of the reference, and for several policies their front.

    Args:
        sampled: Answers of the policies and of the reference, to prompts with the columns that the rewards read.
        rewards: The recipe's, by name with their options.
        completion_ids: Like `sampled.answers`, the token ids of each answer. Without them (answers of a file) rewards
            that count tokens are left out, as those are that read calls of tools where nobody could call any, and those that
            read environments; `details` says so. Of answers that call tools they are the tokens that the policy wrote.
        recipes: By policy the recipe as it was read; those that differ by seed and output folder alone are seeds of one.
        allow: Rewards of the form MODULE:FUNCTION that may run.
        reference_point: The worst corner of the hypervolume, a value of each objective. By default the reference
            policy's own values.

    Raises:
        RunError: If a reward cannot be made, fails, or gives other than one number or None for each answer.
    """
    values, left_out = objective_values(sampled, rewards, completion_ids=completion_ids, allow=allow)
    estimates: dict[str, Estimate] = {}
    comparisons: dict[str, Compared] = {}
    prompts = [row["prompt"] for row in sampled.rows]
    for name, sides in values.items():
        means = {who: _by_prompt(table) for who, table in sides.items()}
        bounds = range_of(name)
        estimates |= sided_estimates(f"objectives/{name}", means, bounds=bounds)
        comparisons |= every_pair(f"objectives/{name}", means, prompts, bounds=bounds)
    scales = {name: scale_of(name, sides) for name, sides in values.items()}
    details: dict[str, Any] = {
        "rewards": {name: dict(options) for name, options in rewards.items()},
        "scale": {name: list(scale) for name, scale in scales.items()},
        "left_out": left_out,
    }
    front = None
    if len(sampled.policies) > 1 and len(values) > 1:
        means = {who: np.stack([_by_prompt(values[name][who]) for name in values], axis=1) for who in sampled.answers}
        ranges = {name: range_of(name) for name in scales}
        front = front_of(means, scales, ranges=ranges, recipes=recipes or {}, reference_point=reference_point)
    if front is not None:
        estimates |= front.estimates
        details["front"] = front.details()
    return ObjectiveReport(estimates, comparisons, details, front)


def objective_values(
    sampled: Sampled, rewards: Rewards, *, completion_ids: Ids | None = None, allow: Collection[str] = ()
) -> tuple[dict[str, dict[str, Float[np.ndarray, "prompts samples"]]], dict[str, str]]:
    """The value of each answer by objective, then by policy or "ref"; and why an objective is left out, by name.

    NaN where an objective does not apply to an answer. One that applies to no answer of anybody is left out.
    """
    values: dict[str, dict[str, np.ndarray]] = {}
    left_out: dict[str, str] = {}
    for name, options in rewards.items():
        if completion_ids is None and name in REWARDS and IDS in REWARDS[name].reads:
            left_out[name] = "it counts tokens, which answers of a file do not have"
            continue
        if sampled.turns is None and name in REWARDS and CALLS in REWARDS[name].reads:
            left_out[name] = "it reads calls of tools, and answers are sampled without tools here"
            continue
        reward = make_reward(name, allow, **options)
        if ENVIRONMENTS in inspect.signature(reward).parameters:
            left_out[name] = "it reads the environments themselves, which are gone once an answer is written"
            continue
        if hasattr(reward, "training"):
            _called(name, reward, sampled, REF, completion_ids)
            reward.training = False  # type: ignore[attr-defined]
        found = {who: _called(name, reward, sampled, who, completion_ids) for who in sampled.answers}
        values[name] = found
    values |= owned_values(sampled)
    for name in [name for name, found in values.items() if all(np.isnan(table).all() for table in found.values())]:
        left_out[name] = "it applies to none of the answers"
        del values[name]
    return values, left_out


def owned_values(sampled: Sampled) -> dict[str, dict[str, Float[np.ndarray, "prompts samples"]]]:
    """What environments said that answers are worth, by the names of their classes and by policy; NaN where one did not."""
    turns = sampled.turns or {}
    names = dict.fromkeys(name for rows in turns.values() for row in rows for one in row for name in one.rewards)

    def value(found: float | None) -> float:
        return np.nan if found is None else found

    return {
        name: {
            who: np.array([[value(one.rewards.get(name)) for one in row] for row in rows])
            for who, rows in turns.items()
        }
        for name in names
    }


def _called(
    name: str, reward: Reward, sampled: Sampled, who: str, completion_ids: Ids | None
) -> Float[np.ndarray, "prompts samples"]:
    rows = [row for row in sampled.rows for _ in range(sampled.samples)]
    prompts = [row["prompt"] for row in rows]
    answers: list[Any] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, sampled.flat(who), strict=True)
    ]
    if sampled.turns is not None:  # the whole conversation, as in training
        turns = [one for row in sampled.turns[who] for one in row]
        prompts, answers = [one.prompt for one in turns], [copy.deepcopy(one.messages) for one in turns]
    names = dict.fromkeys(key for row in rows for key in row if key not in ("prompt", "completion", IDS))
    columns: dict[str, Any] = {key: [row.get(key) for row in rows] for key in names}
    if completion_ids is not None:
        columns[IDS] = [list(ids) for answers_ in completion_ids[who] for ids in answers_]
    got = reward(completions=answers, prompts=prompts, log_extra=_ignore, log_metric=_ignore, **columns)
    if len(got) != len(answers):
        raise RunError(f"reward {name!r}: must give one value for each of {len(answers)} answers, got {len(got)}")
    flat = np.array([np.nan if value is None else float(value) for value in got])
    return flat.reshape(len(sampled.rows), sampled.samples)


def _ignore(*_: Any, **__: Any) -> None:
    """What TRL would log of a reward function; an evaluation does not."""


def _by_prompt(table: Float[np.ndarray, "prompts samples"]) -> Float[np.ndarray, " prompts"]:
    applies = ~np.isnan(table)
    counts = applies.sum(axis=1)
    return np.where(counts > 0, np.where(applies, table, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def scale_of(name: str, sides: Mapping[str, Float[np.ndarray, "..."]]) -> tuple[float, float]:
    """What is worth 0 and what is worth 1: a reward's range or, where none is stated, the least and the most seen."""
    if np.isfinite(range_of(name)).all():
        return range_of(name)
    seen = np.concatenate([table.ravel() for table in sides.values()])
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    return low, high if high > low else low + 1.0
