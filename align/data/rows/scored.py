"""Reads one row of scored completions, or says why it cannot be used.

A row holds a `prompt` and either `completions` and `rewards`, or `responses`, a list of objects with `content` and `scores`.
A reward is a number, null for none, or an object of named scores, which weights add up; one alone needs none.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from .columns import SYSTEM
from .messages import RowError, answer_to, with_system

Reward = float | int | None

NUMBER = re.compile(r"(?:(?<!\w)-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


def is_correct(text: str, answer: str) -> bool:
    """Whether the last number of a text is the last number of the answer: 1,000.0 is 1000, and 10-5 ends with 5.

    Raises:
        RowError: If there is no number in the answer.
    """
    expected = _last_number(answer)
    if expected is None:
        raise RowError("no-number", f"the answer {answer!r} holds no number to compare with")
    return _last_number(text) == expected


def text_of(completion: Any) -> str:
    """A completion's text: itself, or the contents of its messages."""
    if isinstance(completion, str):
        return completion
    return "\n".join(message["content"] for message in completion)


class Scored(NamedTuple):
    """A prompt and its completions, all text or all messages, with a reward for each."""

    prompt: Any
    completions: list[Any]
    rewards: list[Reward]


def read_scored(row: Mapping[str, Any], weights: Mapping[str, float] | None, answer: str | None) -> Scored:
    """A row in one of the layouts above.

    Args:
        row: A row of the source.
        weights: What each of several scores counts in the reward; a completion that lacks one of them has no reward.
        answer: The column of the right answer, from which rewards are then made: 1 where `is_correct`, else 0.

    Raises:
        RowError: If the row cannot be used.
    """
    completions, rewards = completions_of(row), row.get("rewards")
    if row.get("responses") is not None:
        rewards = [response.get("scores") for response in row["responses"]]
    if answer is not None:
        if row.get(answer) is None:
            raise RowError("missing-value", f"no {answer!r} to compare with")
        return Scored(
            prompt_of(row), completions, [float(is_correct(text_of(one), str(row[answer]))) for one in completions]
        )
    if not isinstance(rewards, list) or len(rewards) != len(completions):
        got = f"{len(rewards)}" if isinstance(rewards, list) else "no list"
        raise RowError(
            "wrong-type", f"rewards must be a list of one for each of {len(completions)} completions, got {got}"
        )
    return Scored(prompt_of(row), completions, [_reward(reward, weights) for reward in rewards])


def completions_of(row: Mapping[str, Any]) -> list[Any]:
    """The completions of a row; those of a chat are messages, also where they are written as text.

    Raises:
        RowError: If they are not there, or are something else.
    """
    responses, completions = row.get("responses"), row.get("completions")
    if responses is not None:
        if not isinstance(responses, list) or not all(
            isinstance(one, Mapping) and "content" in one for one in responses
        ):
            raise RowError("wrong-type", "responses must be a list of objects with content and scores")
        completions = [response["content"] for response in responses]
    if not isinstance(completions, list):
        raise RowError("missing-value", "no list of completions or responses")
    prompt, whole = prompt_of(row), []
    for completion in completions:
        completion = answer_to(prompt, completion, "a completion")
        is_chat = isinstance(completion, list) and all(
            isinstance(one, Mapping) and isinstance(one.get("content"), str) for one in completion
        )
        if not isinstance(completion, str) and not is_chat:
            raise RowError("wrong-type", "a completion is neither text nor a list of messages")
        whole.append(completion)
    return whole


def prompt_of(row: Mapping[str, Any]) -> Any:
    """The prompt of a row, with the text of its column `system`, if it has one, as its first message.

    Raises:
        RowError: If it is not there, or has another system message.
    """
    if not row.get("prompt"):
        raise RowError("missing-value", "the prompt is missing")
    system = next((row[name] for name in SYSTEM if row.get(name) is not None), None)
    return row["prompt"] if system is None else with_system({"prompt": row["prompt"]}, system)["prompt"]


def _reward(value: Any, weights: Mapping[str, float] | None) -> Reward:
    if isinstance(value, Mapping):
        if weights is None and len(value) == 1:
            return _reward(next(iter(value.values())), None)
        if weights is None:
            raise RowError("wrong-type", f"several scores, {', '.join(value)}; say what each counts with --weights")
        lacking = [name for name in weights if name not in value]
        if lacking:
            raise RowError("missing-value", f"no score {lacking[0]!r}; there are {', '.join(value)}")
        parts = [value[name] for name in weights]
        return (
            None
            if None in parts
            else math.fsum(w * _number(part) for w, part in zip(weights.values(), parts, strict=True))
        )
    if value is not None and weights is not None:
        raise RowError("wrong-type", "rewards without names, to which --weights cannot apply")
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise RowError("wrong-type", f"a reward is no number but {value!r}")
    return float(value)


def _last_number(text: str) -> Decimal | None:
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None
