"""Draws the prompts of a generation batch by how uncertain their values are (SPO, arXiv:2509.13232)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from jaxtyping import Float

from align.weighting.single_stream import SingleStream, prompt_number


def drawn(weights: Float[np.ndarray, " prompts"], count: int, key: Sequence[int]) -> list[int]:
    """Positions drawn one after another without replacement, each by its weight among those that are left.

    The smallest of exponential times over weights have that law (Efraimidis and Spirakis 2006).

    Args:
        weights: Positive.
        count: At most as many as there are.
        key: What the draw follows from, whole numbers.
    """
    times = np.random.default_rng(list(key)).exponential(size=len(weights)) / weights
    return np.argsort(times, kind="stable")[:count].tolist()


class UncertainPrompts:
    """The training prompts, drawn for each generation batch from the estimator's table as it then is.

    A draw follows from the seed, the number of the batch and the table, so that all processes draw the same, and a resumed run
    what it would have drawn.

    Args:
        data: The training set.
        estimator: Has the table.
        seed: Of the run.

    Raises:
        ValueError: If the training set is a stream of rows, in which nothing can be drawn.
    """

    def __init__(self, data: Any, estimator: SingleStream, seed: int) -> None:
        if not isinstance(data, Dataset):
            raise ValueError(
                "estimator_options: prompts: 'uncertain' draws from the whole training set, and it is streamed"
            )
        self.data, self.estimator, self.seed = data, estimator, seed
        self.numbers = [prompt_number(prompt) for prompt in data["prompt"]]

    def rows(self, given: Sequence[dict[str, Any]], number: int, accelerator: Accelerator) -> list[dict[str, Any]]:
        """This process's part of batch `number`, in the place of the rows that it was given, with their columns.

        Raises:
            ValueError: If a batch has more prompts than there are: each is drawn at most once.
        """
        count = len(given) * accelerator.num_processes
        if count > len(self.numbers):
            raise ValueError(
                f"estimator_options: prompts: 'uncertain' draws {count} different prompts a batch, and there are "
                f"{len(self.numbers)}; lower per_device_train_batch_size or steps_per_generation"
            )
        weights = self.estimator.uncertainty(self.numbers)
        chosen = drawn(weights, count, [self.seed, number])
        own = chosen[accelerator.process_index * len(given) :][: len(given)]
        return [{name: row[name] for name in given[0]} for row in (self.data[position] for position in own)]
