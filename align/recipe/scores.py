"""Defines the part of a recipe that says who scores sampled answers: rewards, judges and labels."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from align.errors import RunError
from align.rewards import REWARDS, make_reward
from align.strict.fields import nearest

from .sections import GIVE_REWARDS, JudgeConfig

POLICY = "policy"
"""The path of a judge that is the policy itself."""
NAME = re.compile(r"[A-Za-z0-9][\w:.-]{0,79}", re.ASCII)


@dataclass
class ScoreConfig:
    """Who scores the answers. Several scores are added up by `weights`."""

    rewards: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """Names of `align.rewards.REWARDS` with their options, or MODULE:FUNCTION with `--allow`."""
    judges: dict[str, JudgeConfig] = field(default_factory=dict)
    """By a name of your own; of a language model `path: policy` is the policy itself."""
    column: str | None = None
    """A column of the answers' file with a list of one number or null for each answer, as people write it."""
    weights: dict[str, float] = field(default_factory=dict)
    of: Literal["win_rate", "log_odds"] = "win_rate"
    """What a judge that compares gives an answer: its mean probability of being preferred to the answers of the prompt,
    itself among them, as DNO takes it; or the mean log-odds, as GPO takes it."""

    def __post_init__(self) -> None:
        names = self.names()
        problems = [] if names else ["rewards: nothing scores the answers; name rewards, judges or a column"]
        problems += [
            f"judges: {name!r} is the name of a reward or the column, too" for name in names if names.count(name) > 1
        ]
        problems += [
            f"judges: a name is up to 80 letters, digits, _, -, . and :, got {name!r}"
            for name in names
            if not NAME.fullmatch(name) and name not in REWARDS
        ]
        for name, options in self.rewards.items():
            try:
                if name in REWARDS:
                    make_reward(name, **(options or {}))
                elif ":" not in name:
                    problems.append(f"rewards: unknown, got {name!r}; {nearest(name, REWARDS)}; or MODULE:FUNCTION")
            except (RunError, TypeError) as error:
                problems.append(f"rewards.{name}: {str(error).removeprefix(f'reward {name!r}: ')}")
        problems += [
            f"weights.{name}: no such score; there are {', '.join(names)}" for name in self.weights if name not in names
        ]
        problems += [
            f"weights.{name}: must be finite, got {w}" for name, w in self.weights.items() if not math.isfinite(w)
        ]
        if self.of != "win_rate" and all(judge.kind in GIVE_REWARDS for judge in self.judges.values()):
            problems.append(f"of: only a judge that compares has {self.of}")
        if problems:
            raise ValueError("\n".join(problems))

    def names(self) -> list[str]:
        """What the scores are called."""
        return [*self.rewards, *self.judges, *([self.column] if self.column else [])]


def as_sections(values: Any) -> Any:
    """What a recipe says of scores, short forms written out: one judge's settings, rewards as a list of names."""
    if isinstance(values, dict) and "kind" in values:
        return {"judges": {"judge": {k: v for k, v in values.items() if k != "of"}}} | (
            {"of": values["of"]} if "of" in values else {}
        )
    if isinstance(values, dict) and isinstance(values.get("rewards"), list):
        names = values["rewards"]
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return {**values, "rewards": dict.fromkeys(names)}
    return values
