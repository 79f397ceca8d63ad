"""Applies the one rule of truncation: which tokens of a prompt and its completion stay at a largest length.

TRL's collators of trl 1.16 put the completion after the prompt and keep the first `max_length` tokens. The prompt is
therefore cut only where it is longer than that by itself, and then nothing of the completion stays. TRL applies the rule
inside its own collators; a test holds this module to their result.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

Tokens = TypeVar("Tokens", list[int], np.ndarray)


def truncated(prompt: Tokens, completion: Tokens, max_length: int | None) -> tuple[Tokens, Tokens]:
    """What stays of both.

    Args:
        prompt: Token ids.
        completion: Token ids that follow them.
        max_length: Tokens that a row may have; None cuts nothing.
    """
    return prompt[:max_length], completion[: room(len(prompt), max_length)]


def room(prompt_tokens: int, max_length: int | None) -> int | None:
    """Tokens that a prompt leaves for its completion, at least 0; None if there is no limit."""
    return None if max_length is None else max(max_length - prompt_tokens, 0)


def truncated_lengths(prompt: Any, completions: Any, max_length: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of tokens that stay of prompts and of completions; arrays that broadcast against each other."""
    prompt, completions = np.asarray(prompt), np.asarray(completions)
    if max_length is None:
        return prompt, completions
    prompt = np.minimum(prompt, max_length)
    return prompt, np.minimum(completions, max_length - prompt)


def fits(prompt: Sequence[int], completion: Sequence[int], max_length: int | None) -> bool:
    """Whether nothing is cut."""
    return max_length is None or len(prompt) + len(completion) <= max_length
