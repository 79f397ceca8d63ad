"""Defines the sections of a recipe that are ours: reference, evaluation, and what it is expected to give."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from align.rewards import REWARDS
from align.runs.contents import result_in
from align.strict.fields import nearest
from align.strict.places import wrong_places


@dataclass
class StartConfig:
    """The weights that training begins with, whatever it is held against."""

    adapter: str
    """An adapter, or the directory of a run that trained one."""


@dataclass
class RefConfig:
    """The reference π_ref.

    `base`: the model itself, adapters off. `adapter`: a frozen copy of the adapter in `path` is the reference; without
    `start` the policy begins with it, too. `model`: the model at `path`. Of both, a run's directory will do. `cached`: the
    data's columns `ref_chosen_logps` and `ref_rejected_logps`.
    """

    kind: Literal["base", "adapter", "model", "cached"] = "base"
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind in ("adapter", "model") and not self.path:
            raise ValueError(f"path: needed by kind {self.kind!r}")
        if self.kind in ("base", "cached") and self.path:
            raise ValueError(f"path: not used by kind {self.kind!r}, got {self.path!r}")
        if self.path:
            found = result_in(self.path, self.kind) or Path(self.path)
            self.path = self.path if found == Path(self.path) else str(found)  # of a run that trained it


@dataclass
class Generate:
    """How the evaluation samples answers, from policy and reference alike."""

    prompts: int = 128
    samples: int = 1
    """Answers per prompt. Several make estimates sharper, and show what the best of k of them is worth."""
    max_new_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 32
    revisions: int = 0
    """How often a policy is shown its answer as a draft and answers anew (SRPO); the reference answers once."""
    prefer: dict[str, float] | None = None
    """By reward, what it is worth to whoever asks a policy with rewards in context; the reference is not told."""

    def __post_init__(self) -> None:
        if self.revisions < 0:
            raise ValueError(f"revisions: must not be negative, got {self.revisions}")
        for name in ("prompts", "samples", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: must be finite and not negative, got {self.temperature}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples: must be 1 at temperature 0, where all answers are the same, got {self.samples}")


GIVE_REWARDS = ("reward", "reward_model", "ensemble", "experts")
"""Kinds of judges that give each answer a number; the others compare answers."""
NEEDED = {
    "reward": ("reward",),
    "reward_model": ("path",),
    "ensemble": ("paths",),
    "experts": ("path",),
    "preference_model": ("path",),
    "language_model": ("path",),
    "endpoint": ("url", "model"),
    "own": ("name",),
}
TAKEN = {
    "reward": ("options", "temperature"),
    "reward_model": (),
    "ensemble": ("combine", "deviations"),
    "experts": (),
    "preference_model": (),
    "language_model": ("batch_size", "template"),
    "endpoint": (
        "key_variable",
        "temperature",
        "max_tokens",
        "timeout_seconds",
        "attempts",
        "concurrency",
        "template",
        "reasoning",
        "logprobs",
    ),
    "own": ("options",),
}


@dataclass
class JudgeConfig:
    """Who is shown a policy's answer and the reference's, and says which is better; fields are those of its kind.

    `reward`: the larger of two rewards wins. `reward_model`, `preference_model`: what `PreferenceModelTrainer` saved, in
    the folder `path`; the former gives a reward too. `ensemble`: several reward models as one.
    `experts`: what `alignkit experts` wrote to `path`, which may read the column `category`. `language_model`: the model at `path` is asked for A or B.
    `own`: a judge of a file that `--allow-file` has run. `endpoint`: an OpenAI-compatible one, which is asked only if
    whoever evaluates allows it (`--allow HOST`, or with a key `--allow VARIABLE@HOST`).
    """

    kind: Literal[
        "reward", "reward_model", "preference_model", "ensemble", "experts", "language_model", "endpoint", "own"
    ]
    reward: str | None = None
    """A name from `align.rewards.REWARDS`, or MODULE:FUNCTION with `--allow`. It may read columns of the data."""
    name: str | None = None
    """Of a judge that a file of `--allow-file` added to `align.judges.scorers.JUDGES`."""
    options: dict[str, Any] | None = None
    """The own settings of the reward, or of the judge of that file."""
    path: str | None = None
    paths: list[str] | None = None
    """Of an ensemble: the folders of its reward models."""
    combine: Literal["mean", "min", "lower"] | None = None
    """Of an ensemble: the mean of its members' rewards (the default), the least, or the mean less `deviations` standard
    deviations."""
    deviations: int | float | None = None
    """Of `combine: lower`; 1 by default."""
    url: str | None = None
    """Up to and without `/chat/completions`, such as http://127.0.0.1:8000/v1."""
    model: str | None = None
    key_variable: str | None = None
    """Name of the environment variable that holds the key."""
    temperature: float | None = None
    """Of a reward: P(win) = σ(difference / temperature); 0, the default, prefers the larger for certain. Of an endpoint:
    of its sampling, by default 0."""
    batch_size: int | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None
    attempts: int | None = None
    concurrency: int | None = None
    template: str | None = None
    """The question, with {prompt}, {a} and {b} once each; it says what to reply: A or B, and to endpoints also tie."""
    reasoning: bool | None = None
    """Whether an endpoint gives reasons first; the last [[A]], [[B]] or [[C]] (a tie) is then the verdict."""
    logprobs: bool | None = None
    """Whether an endpoint's verdict counts by the probabilities of A, B and tie in its place."""

    def __post_init__(self) -> None:
        needed, taken = NEEDED[self.kind], TAKEN[self.kind]
        given = {name: value for name, value in vars(self).items() if value is not None and name != "kind"}
        problems = [f"{name}: needed by kind {self.kind!r}" for name in needed if not given.get(name)]
        problems += [
            f"{name}: not used by kind {self.kind!r}, got {value!r}"
            for name, value in given.items()
            if name not in needed + taken
        ]
        problems += wrong_places(self.template) if self.template is not None else []
        problems += [
            f"{name}: must be at least 1, got {given[name]}"
            for name in ("batch_size", "max_tokens", "attempts", "concurrency")
            if given.get(name, 1) < 1
        ]
        if not 0 < given.get("timeout_seconds", 1.0) < math.inf:
            problems.append(f"timeout_seconds: must be finite and positive, got {self.timeout_seconds}")
        if not 0 <= given.get("temperature", 0.0) < math.inf:
            problems.append(f"temperature: must be finite and not negative, got {self.temperature}")
        if self.paths is not None and len(set(self.paths)) < max(2, len(self.paths)):
            problems.append(f"paths: at least two reward models, each once, got {self.paths}")
        if self.deviations is not None and (self.combine != "lower" or not 0 <= self.deviations < math.inf):
            problems.append(f"deviations: not negative, and of combine: lower alone, got {self.deviations}")
        if self.reward is not None and not _names_a_reward(self.reward):
            problems.append(f"reward: {_unknown(self.reward)}")
        if problems:
            raise ValueError("\n".join(problems))


@dataclass
class PromptSet:
    """A file of prompts of a benchmark, JSON lines, compressed or not."""

    path: str


@dataclass
class EvalConfig:
    """What `alignkit eval` does with a finished run."""

    pairs: int | None = None
    """At most so many pairs of each evaluation set are scored; null scores all."""
    batch_size: int = 4
    generate: Generate | None = None
    gold_reward: str | None = None
    """A name from `align.rewards.REWARDS`, or MODULE:FUNCTION, which `alignkit eval --allow MODULE:FUNCTION` lets run."""
    judges: dict[str, JudgeConfig] = field(default_factory=dict)
    """By a name of your own: who compares the answers of a policy with those of the reference."""
    group: str | None = None
    """A column of `data.eval` that says of which group of people a row is: accuracies and win rates are told by group, and
    of the group that is worst off."""
    instructions: PromptSet | None = None
    """Prompts with verifiable instructions, IFEval's columns: prompt, instruction_id_list, kwargs."""
    refusals: PromptSet | None = None
    """Safe and unsafe prompts, XSTest's columns: prompt, label, type."""
    reference_point: dict[str, float] | None = None
    """Worst corner of the hypervolume when runs are compared, a value for each reward; by default the reference
    policy's values."""

    def __post_init__(self) -> None:
        for name in ("pairs", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        gold = self.gold_reward
        if gold is not None and not _names_a_reward(gold):
            raise ValueError(f"gold_reward: {_unknown(gold)}")
        scores = ("gold_reward", "judges", "instructions", "refusals", "reference_point")
        asked = [name for name in scores if getattr(self, name)]
        if asked and self.generate is None:
            raise ValueError(f"{asked[0]}: scores generated answers, so `generate` is needed too")
        for name in self.judges:
            if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,39}", str(name), re.ASCII):
                raise ValueError(
                    f"judges: a name is up to 40 letters, digits, _ and -, for it is part of a file's; got {name!r}"
                )


def _names_a_reward(name: str) -> bool:
    return name in REWARDS or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name) is not None


def _unknown(name: str) -> str:
    return f"unknown, got {name!r}; {nearest(name, REWARDS)}; or MODULE:FUNCTION of an installed package"


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
