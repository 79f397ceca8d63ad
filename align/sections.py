"""The sections of a recipe that are ours: the reference, the evaluation, and what it is expected to give."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from .rewards import REWARDS
from .typed import nearest


@dataclass
class RefConfig:
    """The reference π_ref.

    `base`: the model itself, adapters off. `adapter`: the policy starts from the adapter in `path`, and a frozen copy
    of it is the reference. `model`: the model at `path`. `cached`: the data's columns `ref_chosen_logps` and
    `ref_rejected_logps`.
    """

    kind: Literal["base", "adapter", "model", "cached"] = "base"
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind in ("adapter", "model") and not self.path:
            raise ValueError(f"path: needed by kind {self.kind!r}")
        if self.kind in ("base", "cached") and self.path:
            raise ValueError(f"path: not used by kind {self.kind!r}, got {self.path!r}")


@dataclass
class Generate:
    """How the evaluation samples answers, from policy and reference alike."""

    prompts: int = 128
    max_new_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("prompts", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: must be finite and not negative, got {self.temperature}")


@dataclass
class EvalConfig:
    """What `alignkit eval` does with a finished run."""

    pairs: int | None = None
    """At most so many pairs of each evaluation set are scored; null scores all."""
    batch_size: int = 4
    generate: Generate | None = None
    gold_reward: str | None = None
    """A name from `align.rewards.REWARDS`, or MODULE:FUNCTION, which `alignkit eval --allow MODULE:FUNCTION` lets run."""

    def __post_init__(self) -> None:
        for name in ("pairs", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        gold = self.gold_reward
        if gold is not None and gold not in REWARDS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", gold):
            raise ValueError(
                f"gold_reward: unknown, got {gold!r}; {nearest(gold, REWARDS)}; or MODULE:FUNCTION of an installed package"
            )
        if self.gold_reward is not None and self.generate is None:
            raise ValueError("gold_reward: scores generated answers, so `generate` is needed too")


@dataclass
class Expectation:
    """What `alignkit verify` compares an estimate of the report with.

    `near`: within `tol` of `value`, on either side. `at_least` and `at_most`: beyond it by `tol` at most.
    """

    value: float
    tol: float
    direction: Literal["near", "at_least", "at_most"] = "near"

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value: must be finite, got {self.value}")
        if not 0 <= self.tol < math.inf:
            raise ValueError(f"tol: must be finite and not negative, got {self.tol}")

    def holds(self, got: float) -> bool:
        """Whether a measured value is as expected; one that is not a number never is."""
        above, below = got - self.value >= -self.tol, got - self.value <= self.tol
        return {"near": above and below, "at_least": above, "at_most": below}[self.direction]
