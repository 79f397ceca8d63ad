"""Holds answers that go on in the next step, and gives prompts to the places of those that are finished (T-PPO)."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset

from align.errors import RunError

logger = logging.getLogger(__name__)


class Slots:
    """Places of one process, each with a prompt and the tokens of its answer so far.

    Prompts come in an order of their own, each once an epoch, drawn anew for each from the seed. Free places of all processes
    take the next ones, in the order of processes and places.

    Args:
        data: The training set.
        count: Places of this process.
        seed: Of the run.
        shuffle: Whether epochs are drawn, or in the order of the data.
    """

    def __init__(self, data: Dataset, count: int, *, seed: int, shuffle: bool) -> None:
        self.data, self.seed, self.shuffle = data, seed, shuffle
        self.held: list[tuple[int, list[int]] | None] = [None] * count
        """Of each place: which row of the data it has, and the answer's tokens; None if it is free."""
        self.taken = 0
        """Prompts given to all processes."""
        self._order: tuple[int, list[int]] = -1, []

    @property
    def tokens(self) -> list[list[int]]:
        """The answer so far, place by place; every place must be taken."""
        return [held[1] for held in self.held if held is not None]

    def fill(self, process: int) -> None:
        """Give prompts to free places. All processes call it together."""
        free = gather_object([held is None for held in self.held])
        first = process * len(self.held)
        for place, is_free in enumerate(free):
            if is_free:
                if 0 <= place - first < len(self.held):
                    self.held[place - first] = self._row(self.taken), []
                self.taken += 1

    def rows(self, names: Collection[str]) -> list[dict[str, Any]]:
        """These columns of the rows of the data, place by place; every place must be taken."""
        taken = (self.data[held[0]] for held in self.held if held is not None)
        return [{name: row[name] for name in names} for row in taken]

    def go_on(self, new: Sequence[Sequence[int]], *, ends: Collection[int], longest: int) -> list[bool]:
        """Append tokens to the answers, at most up to `longest`; whether each is finished, by that or by its last token."""
        finished = []
        for tokens, more in zip(self.tokens, new, strict=True):
            tokens.extend(more[: longest - len(tokens)])
            finished.append(len(tokens) >= longest or tokens[-1] in ends)
        return finished

    def free(self, finished: Sequence[bool]) -> None:
        """Give up the places of finished answers."""
        self.held = [None if over else held for over, held in zip(finished, self.held, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """The answers under way with their prompts, and how many prompts were taken."""
        prompts = [None if held is None else self.data[held[0]]["prompt"] for held in self.held]
        return {"taken": self.taken, "held": self.held, "prompts": prompts}

    def load_state_dict(self, state: dict[str, Any], where: str, *, longest: int) -> None:
        """Take up what `state_dict` gave. An answer that cannot go on, as data or `longest` were changed, is given up.

        Raises:
            RunError: If it is of another number of places.
        """
        if len(state["held"]) != len(self.held):
            raise RunError(
                f"{where}: has {len(state['held'])} answers under way on a process, and this run {len(self.held)}; keep "
                "per_device_train_batch_size and steps_per_generation as they were, or start anew"
            )
        self.taken, self.held, given_up = state["taken"], list(state["held"]), 0
        for place, (held, prompt) in enumerate(zip(state["held"], state["prompts"], strict=True)):
            if held is not None and (len(held[1]) >= longest or not self._has(held[0], prompt)):
                self.held[place], given_up = None, given_up + 1
        if given_up:
            logger.warning(
                "%s: %d answers under way are given up: their prompts are not in the data at their places any more, or they have "
                "max_completion_length=%d tokens already", where, given_up, longest,
            )  # fmt: skip

    def _has(self, row: int, prompt: Any) -> bool:
        return row < len(self.data) and self.data[row]["prompt"] == prompt

    def _row(self, number: int) -> int:
        """The row of the data that the prompt of this number is, counted over epochs."""
        epoch, place = divmod(number, len(self.data))
        if not self.shuffle:
            return place
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.data)).tolist()
        return self._order[1][place]
