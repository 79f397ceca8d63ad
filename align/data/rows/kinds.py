"""Writes preference pairs as the rows that other methods learn from."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle
from typing import Any

LABELS = {"chosen": True, "rejected": False}
"""What the sides of a pair are labelled."""


def unpair(pairs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Both sides of every pair as rows of `prompt` and `completion`, the chosen first.

    For supervised training on both before the preference method, which keeps the rejected from starting in a valley of
    the probability: Ren and Sutherland 2024, Learning Dynamics of LLM Finetuning (arXiv:2407.10490), "extend". A completion
    that is in several pairs is there as often.
    """
    for pair in pairs:
        for side in ("chosen", "rejected"):
            yield {"prompt": pair["prompt"], "completion": pair[side]}


def labelled(pairs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Both sides of every pair as rows of `prompt`, `completion` and `label`, which KTO learns from."""
    for row, label in zip(unpair(pairs), cycle(LABELS.values()), strict=False):
        yield {**row, "label": label}


def chosen_alone(pairs: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The better side of every pair as a row of `prompt`, `completion` and `reward`: rejection sampling's."""
    for pair in pairs:
        yield {"prompt": pair["prompt"], "completion": pair["chosen"], "reward": pair["chosen_reward"]}


KINDS: dict[str, Callable[[Iterable[Mapping[str, Any]]], Iterable[Mapping[str, Any]]]] = {
    "pairs": iter,
    "completions": unpair,
    "labels": labelled,
    "chosen": chosen_alone,
}
"""What pairs are written as."""
