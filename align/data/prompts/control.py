"""Writes into the prompt how good the completion is, so that at inference one can ask for a good one.

A control prefix is one of two texts before the prompt: conditional training of Korbak et al. 2023, Pretraining Language
Models with Human Preferences (arXiv:2302.08582). Rewards in context are numbers after it: Yang et al. 2024
(arXiv:2402.10207).

All functions take plain prompts and chats; the text goes to the beginning or the end of the last message.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

GOOD, BAD = "<|good|>", "<|bad|>"
Number = float | int
Rewards = Mapping[str, Sequence[Number]]
"""For each objective by name one reward for each row."""


def control_prefixes(
    rows: Sequence[Mapping[str, Any]],
    rewards: Sequence[Number],
    rng: np.random.Generator,
    *,
    threshold: Number | None = None,
    quantile: Number | None = None,
    drop: Number = 0.01,
    good: str = GOOD,
    bad: str = BAD,
) -> list[dict[str, Any]]:
    """Rows whose prompt begins with `good` or `bad`, as the completion is, or with neither.

    The paper labels each segment of a text by its badness; here one label goes to a whole completion, by its reward. For
    text without a prompt, give it one, such as the tokenizer's beginning of a text.

    Args:
        rows: Rows with a `prompt`; their other columns stay.
        rewards: One for each row, the higher the better.
        rng: Draws which rows get no prefix.
        threshold: The least reward that is good. The paper's badness of 5.6e-4 at most is a reward of -5.6e-4 at least.
        quantile: The same as a quantile of these rewards, in [0, 1]. Give one of the two.
        drop: Share of rows without prefix, from which the model learns to do without; 1% in the paper.
        good: The prefix of good rows.
        bad: The prefix of bad rows; it should not be generated, if it is a token.

    Raises:
        ValueError: If the rewards are not finite or do not match the rows, or an option is out of its range.
    """
    values = _matrix({"reward": rewards}, len(rows))[:, 0]
    if (threshold is None) == (quantile is None):
        raise ValueError("control_prefixes: give either a threshold or a quantile")
    if not 0 <= drop <= 1 or not (quantile is None or 0 <= quantile <= 1):
        raise ValueError(f"control_prefixes: drop and quantile must be in [0, 1], got {drop} and {quantile}")
    if good == bad:
        raise ValueError(f"control_prefixes: good and bad must differ, got {good!r} twice")
    least = threshold if quantile is None else float(np.quantile(values, quantile)) if len(rows) else 0.0
    dropped = rng.random(len(rows)) < drop
    return [
        {**row, "prompt": row["prompt"] if without else prefixed(row["prompt"], good if value >= least else bad)}
        for row, value, without in zip(rows, values, dropped, strict=True)
    ]


def prefixed(prompt: Any, text: str) -> Any:
    """The prompt with a text before it; of a chat before its last message, which is the user's."""
    return _with_last(prompt, lambda content: text + content)


def appended(prompt: Any, text: str) -> Any:
    """The prompt with a text after it; of a chat after its last message, which is the user's."""
    return _with_last(prompt, lambda content: content + text)


def reward_context(rewards: Mapping[str, Number]) -> str:
    """What is said of the rewards: ` <helpful> 1.2 <harmless> -0.3`, each to one decimal, in standard deviations.

    The paper numbers its objectives, `<rm1_score>`; here they have their names.
    """
    return "".join(f" <{name}> {round(float(reward), 1) + 0.0:.1f}" for name, reward in rewards.items())


def preference_context(weights: Mapping[str, Number]) -> str:
    """What is said of the weights of rewards: ` <weight of helpful> 0.7 <weight of harmless> 0.3`, in tenths."""
    return "".join(f" <weight of {name}> {round(float(weight), 1)}" for name, weight in weights.items())


def tenths(weights: Sequence[Number]) -> list[float]:
    """Weights, not negative and not all 0, as the nearest tenths of sum 1: what is left goes to the largest remainders."""
    total = float(sum(map(float, weights)))
    exact = [10 * float(weight) / total for weight in weights]
    floors = [int(one + 1e-9) for one in exact]
    order = sorted(range(len(exact)), key=lambda k: (floors[k] - exact[k], k))
    for k in order[: 10 - sum(floors)]:
        floors[k] += 1
    return [floor / 10 for floor in floors]


def normalised(rewards: Rewards) -> tuple[dict[str, list[float]], dict[str, tuple[float, float]]]:
    """Each objective shifted and scaled to mean 0 and standard deviation 1 over its rows.

    Returns:
        The z-scores, and for each objective the mean and standard deviation, with which rewards obtained later are to be
        normalised. Where all rewards are equal, z-scores are 0 and the standard deviation is said to be 1.

    Raises:
        ValueError: If rewards are not finite, or objectives differ in their number of rows, or there are none.
    """
    values = _matrix(rewards, None)
    if not values.size:
        raise ValueError("normalised: no rewards")
    exponents = np.frexp(np.abs(values).max(axis=0))[1]
    scaled = np.ldexp(values, -exponents)  # by powers of two, so that squares neither overflow nor vanish
    means, deviations = scaled.mean(axis=0), scaled.std(axis=0)
    constant = (values == values[0]).all(axis=0)
    scores = np.where(constant, 0.0, (scaled - means) / np.where(constant, 1.0, deviations))
    means = np.where(constant, values[0], np.ldexp(means, exponents))
    deviations = np.where(constant, 1.0, np.ldexp(deviations, exponents))
    names = list(rewards)
    return (
        {name: scores[:, index].tolist() for index, name in enumerate(names)},
        {name: (float(means[index]), float(deviations[index])) for index, name in enumerate(names)},
    )


def rewards_in_context(rows: Sequence[Mapping[str, Any]], rewards: Rewards) -> list[dict[str, Any]]:
    """Rows whose prompt ends with the normalised rewards of the completion, for supervised training.

    Args:
        rows: Rows with a `prompt`; their other columns stay.
        rewards: One of each objective for each row, in any unit.

    Raises:
        ValueError: As `normalised`, or if there are not as many rewards as rows.
    """
    _matrix(rewards, len(rows))
    scores, _ = normalised(rewards)
    return [
        {**row, "prompt": appended(row["prompt"], reward_context({name: scores[name][index] for name in scores}))}
        for index, row in enumerate(rows)
    ]


def targets(weights: Sequence[Number], rule: str, *, low: Number = 0.0, high: Number = 1.0) -> list[float]:
    """Which rewards to ask for at inference, given what the objectives are worth.

    Args:
        weights: One for each objective, none negative; only their ratios matter.
        rule: With w the weights that sum to 1, `l2` asks for w / ||w||_2, `linf` for min(n w, 1), which is 1 for the
            objective worth most, `linear` for w.
        low: What 0 stands for, in the unit of the context: the least reward to ask for.
        high: What 1 stands for: the most.

    Raises:
        ValueError: If the rule is unknown or the weights are no weights.
    """
    worth = np.asarray(weights, float)
    if not len(worth) or not np.isfinite(worth).all() or (worth < 0).any() or not worth.any():
        raise ValueError(f"targets: weights must be finite, not negative and not all 0, got {list(weights)}")
    if rule not in TARGETS:
        raise ValueError(f"targets: unknown rule {rule!r}; one of {', '.join(TARGETS)}")
    worth = worth / worth.max()  # no weight is too small or too large to be squared or summed
    return (low + TARGETS[rule](worth / worth.sum()) * (high - low)).tolist()


TARGETS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "l2": lambda w: w / np.sqrt((w**2).sum()),
    "linf": lambda w: np.minimum(len(w) * w, 1.0),
    "linear": lambda w: w,
}


def front_targets(
    rng: np.random.Generator, low: Sequence[Number], high: Sequence[Number], *, smallest: bool = False
) -> list[float]:
    """What an online round asks for: the most of every objective but one, and of that one, drawn, anything.

    By default that is one uniform draw, so that every place between the bounds is asked for alike.

    Args:
        rng: Draws the objective, and its target uniformly between its bounds.
        low: The least of each objective, in the unit of the context.
        high: The most of each.
        smallest: Draw for all objectives, and keep the draw that is lowest between its bounds, as the authors' code does.

    Raises:
        ValueError: If there are no bounds, or one is above the other.
    """
    if not low or len(low) != len(high) or any(not least <= most for least, most in zip(low, high, strict=True)):
        raise ValueError(f"front_targets: bounds from {list(low)} to {list(high)} are none")
    asked = [float(most) for most in high]
    if smallest:
        shares = rng.uniform(size=len(asked))
        one = int(shares.argmin())
        asked[one] = float(low[one] + shares[one] * (high[one] - low[one]))
        return asked
    one = int(rng.integers(len(asked)))
    asked[one] = float(rng.uniform(low[one], high[one]))
    return asked


def top_of_any(rewards: Rewards, *, quantile: Number = 0.7) -> list[int]:
    """Positions of the rows an online round keeps: those at or above the quantile of at least one objective.

    Raises:
        ValueError: If rewards are not finite, or objectives differ in their number of rows.
    """
    values = _matrix(rewards, None)
    if not values.size:
        return []
    return np.flatnonzero((values >= np.quantile(values, quantile, axis=0)).any(axis=1)).tolist()


def _with_last(prompt: Any, change: Callable[[str], str]) -> Any:
    if isinstance(prompt, str):
        return change(prompt)
    last = prompt[-1] if isinstance(prompt, Sequence) and prompt else None
    if not isinstance(last, Mapping) or last.get("role") != "user" or not isinstance(last.get("content"), str):
        raise ValueError("a prompt must be text, or messages of which the last is the user's")
    return [*prompt[:-1], {**last, "content": change(last["content"])}]


def _matrix(rewards: Rewards, rows: int | None) -> np.ndarray:
    """Rewards as rows by objectives."""
    if not rewards:
        raise ValueError("no objective has rewards")
    counts = {name: len(values) for name, values in rewards.items()}
    wanted = next(iter(counts.values())) if rows is None else rows
    for name, count in counts.items():
        if count != wanted:
            raise ValueError(f"rewards of {name}: {count} for {wanted} rows")
    values = np.array([list(values) for values in rewards.values()], float).T.reshape(wanted, len(counts))
    for index, name in enumerate(counts):
        bad = np.flatnonzero(~np.isfinite(values[:, index]))
        if len(bad):
            raise ValueError(f"rewards of {name}: row {bad[0] + 1} is not finite ({len(bad)} in all); leave them out")
    return values
