"""Rewards short answers: the dynamic reward weighting paper's rule, and a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from .texts import Text, needed, text_of


@dataclass
class Conciseness:
    """1 if a completion is shorter than the mean of all training completions so far, the current batch included, else 0.

    The mean is over tokens, over all processes, and moves only while `training` is true: whoever evaluates sets it to
    false before and back to true after. Before the first training batch there is no mean, and the reward is None.

    Where it can be fooled: it does not read. An empty answer is the shortest of all, so it must not be the only
    objective. Its target moves with the policy: half of the answers earn it however short they have become.

    Deviation: the paper counts the tokens of the decoded text; here the ids that were sampled are counted, the end of
    sequence among them.

    Source: Lu et al. 2025 (arXiv:2509.11452), the conciseness reward of the official code.
    """

    training: bool = field(default=True, init=False)
    """Whether completions count towards the mean."""
    tokens: int = field(default=0, init=False)
    """Tokens of all training completions so far."""
    completions: int = field(default=0, init=False)
    """How many training completions there were so far."""

    __name__ = "conciseness"

    def __call__(
        self,
        completions: Sequence[Text],
        prompts: Any = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """One reward per completion, 0 or 1, or None before any training completion was seen.

        Raises:
            ValueError: If `completion_ids`, which TRL passes, is missing.
        """
        ids = needed("conciseness", "completion_ids", completion_ids, completions)
        lengths = [len(row) for row in ids]
        if self.training:
            tokens, count = _over_processes(sum(lengths), len(lengths))
            self.tokens += tokens
            self.completions += count
        if self.completions == 0:
            return [None] * len(lengths)
        return [float(length * self.completions < self.tokens) for length in lengths]

    def state_dict(self) -> dict[str, int]:
        """What the mean is made of."""
        return {"tokens": self.tokens, "completions": self.completions}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the mean of `state_dict()`."""
        self.tokens, self.completions = int(state["tokens"]), int(state["completions"])


@dataclass
class LengthBudget:
    """1 up to `tokens` tokens, then falling in a straight line to 0 at `tokens + slack`; 0 for an answer without text.

    Where it can be fooled: it does not read. One word is as good as an answer that uses the budget.
    """

    tokens: int
    """The budget."""
    slack: int = 0
    """Over how many tokens the reward falls to 0; with 0 at once."""

    __name__ = "length_budget"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens: must be at least 1, got {self.tokens}")
        if self.slack < 0:
            raise ValueError(f"slack: must not be negative, got {self.slack}")

    def __call__(
        self,
        completions: Sequence[Text],
        prompts: Any = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> list[float]:
        """One reward per completion, in [0, 1].

        Raises:
            ValueError: If `completion_ids`, which TRL passes, is missing.
        """
        ids = needed("length_budget", "completion_ids", completion_ids, completions)
        return [
            self._kept(len(row)) if text_of(text).strip() else 0.0 for text, row in zip(completions, ids, strict=True)
        ]

    def _kept(self, length: int) -> float:
        if length <= self.tokens:
            return 1.0
        return max(0.0, 1 - (length - self.tokens) / self.slack) if self.slack else 0.0


def _over_processes(*counts: int) -> list[int]:
    """Sums over all processes of a distributed run."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(counts)
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    total = torch.tensor(counts, dtype=torch.int64, device=device)
    dist.all_reduce(total)
    return [int(count) for count in total]
