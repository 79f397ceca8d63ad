"""Defines the part of a recipe that says what a round is: prompts, answers, scores, pairs, and what begins it."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from align.data.commands.pairs import ALONE, OPTIONS, REVERSE, SELECTORS
from align.strict.fields import build, nearest
from align.strict.yaml_tree import Tree

from .in_context import InContextConfig, in_context_problems
from .scores import POLICY, ScoreConfig, as_sections

Origin = Literal["previous", "first"]
MADE = frozenset({"chosen_reward", "rejected_reward", "margin", "reward"})
"""Columns of numbers that the pairs of a round have."""
WHO = ("policy", "ref", "earlier", "gold")


@dataclass
class Each:
    """Prompts of a round."""

    each: int
    """So many, none of which another round has; which, is said by a hash of prompt and seed."""

    def __post_init__(self) -> None:
        if self.each < 1:
            raise ValueError(f"each: must be at least 1, got {self.each}")


@dataclass
class SampleConfig:
    """How the answers of a round are sampled; in a recipe `who` is written `from`."""

    samples: int = 4
    """Answers of each sampler to each prompt."""
    temperature: float | list[float] = 1.0
    """A list has one for each round."""
    top_p: float = 1.0
    """Below 1 only the nucleus is drawn from; see `align.sampling.generate.Decoding`."""
    max_new_tokens: int = 64
    seed: int = 0
    """Of the first round; each further round has the next."""
    batch_size: int = 32
    who: list[str] = field(default_factory=lambda: ["policy"])
    """`policy`, the newest; `ref`, the round's reference; `earlier`, what earlier rounds answered to the same prompts;
    `gold`, the text in the column of the prompts that `gold` names."""
    gold: str | None = None
    revisions: int = 0
    """How often a sampler is shown its answer as a draft and answers anew (SRPO); the last answers count."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}: must be at least 1, got {getattr(self, name)}"
            for name in ("samples", "max_new_tokens", "batch_size")
            if getattr(self, name) < 1
        ]
        problems += [f"from: unknown, got {name!r}; {nearest(name, WHO)}" for name in self.who if name not in WHO]
        problems += [f"from: {name!r} is named twice" for name in dict.fromkeys(self.who) if self.who.count(name) > 1]
        if "policy" not in self.who and "ref" not in self.who:
            problems.append("from: nobody answers; name policy or ref")
        if ("gold" in self.who) != (self.gold is not None):
            problems.append("gold: the column of gold answers and `from: [gold]` belong together")
        if not all(0 <= one < math.inf for one in self.temperatures()):
            problems.append(f"temperature: must be finite and not negative, got {self.temperature}")
        if self.samples > 1 and 0 in self.temperatures():
            problems.append(f"samples: must be 1 at temperature 0, where all answers are the same, got {self.samples}")
        if not 0 < self.top_p <= 1 or (self.top_p < 1 and 0 in self.temperatures()):
            problems.append(f"top_p: must be above 0 and at most 1, and 1 at temperature 0, got {self.top_p}")
        problems += [
            f"{name}: must not be negative, got {getattr(self, name)}"
            for name in ("seed", "revisions")
            if getattr(self, name) < 0
        ]
        if problems:
            raise ValueError("\n".join(problems))

    def temperatures(self) -> list[float]:
        """By round; one for all, or for each."""
        return self.temperature if isinstance(self.temperature, list) else [self.temperature]


@dataclass
class SelectConfig:
    """Which answers become pairs; `rule` is a selector of `alignkit data pairs`, the others are its options."""

    rule: str = "best_worst"
    seed: int = 0
    sigmas: float | None = None
    k: int | None = None
    min_gap: float | None = None
    min_reward: float | None = None
    most: int | None = None
    beta: float | None = None
    most_reward: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in SELECTORS:
            reverse = "; constraints are reversed by `alignkit data pairs`" if self.rule == REVERSE else ""
            raise ValueError(f"rule: unknown, got {self.rule!r}; {nearest(self.rule, SELECTORS)}{reverse}")
        taken = inspect.signature(SELECTORS[self.rule]).parameters
        idle = [name for name in self.options() if name not in taken]
        if idle:
            raise ValueError("\n".join(f"{name}: does nothing with rule {self.rule!r}" for name in idle))
        problems = [
            f"{name}: must be at least 1, got {value}"
            for name in ("k", "most")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        problems += [
            f"{name}: must be finite, got {value}"
            for name in ("sigmas", "min_gap", "min_reward", "beta", "most_reward")
            if (value := getattr(self, name)) is not None and not math.isfinite(value)
        ]
        if problems:
            raise ValueError("\n".join(problems))

    def options(self) -> dict[str, Any]:
        """The options of the selector that are given."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}


@dataclass
class KeepConfig:
    """What earlier rounds give to a later one."""

    earlier: float | list[float] = 0.0
    """Share of what is trained on that comes from the round before; of a list, from the round before, the one before that,
    and so on. 0.3 of 256 new pairs adds 110 of the round before, so that 30% of 366 are old."""

    def __post_init__(self) -> None:
        if any(not 0 <= share < 1 for share in self.shares()) or sum(self.shares()) >= 1:
            raise ValueError(f"earlier: shares must not be negative and add up to less than 1, got {self.earlier}")

    def shares(self) -> list[float]:
        """By age."""
        return list(self.earlier) if isinstance(self.earlier, list) else [self.earlier] if self.earlier else []


@dataclass
class RoundsConfig:
    """Rounds: the policy answers, the answers are scored, pairs are made of them, and it learns from the pairs."""

    count: int
    score: ScoreConfig
    prompts: Each | Literal["all"] = "all"
    sample: SampleConfig = field(default_factory=SampleConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    keep: KeepConfig = field(default_factory=KeepConfig)
    start: Origin = "previous"
    """The weights that a round begins with: those of the round before, or those that the first began with."""
    reference: Origin = "previous"
    """What a round is held against: the policy of the round before, or the recipe's `ref`."""
    max_kl: float | None = None
    """A round whose policy is further from the recipe's reference, in nats an answer, ends the run, and all is kept."""
    in_context: InContextConfig | None = None
    take: Literal["last", "best"] = "last"
    """Whose adapter is the run's: that of the last round, or of the one that the rounds' scorers find best on `data.eval`."""

    def __post_init__(self) -> None:
        problems = [] if self.count >= 1 else [f"count: must be at least 1, got {self.count}"]
        if self.max_kl is not None and not 0 < self.max_kl < math.inf:
            problems.append(f"max_kl: must be positive and finite, got {self.max_kl}")
        if self.max_kl is not None and ("policy" not in self.sample.who or 0 in self.sample.temperatures()):
            problems.append(
                "max_kl: is measured on sampled answers of the policy; name it in sample.from, at a temperature"
            )
        given = len(self.sample.temperatures())
        if isinstance(self.sample.temperature, list) and given != self.count:
            problems.append(f"sample.temperature: a list has one value for each of {self.count} rounds, got {given}")
        if "earlier" in self.sample.who and self.prompts != "all":
            problems.append(
                "sample.from: `earlier` are answers to the same prompts, and rounds of `each` have none in common; ask for "
                "prompts: all, or leave it out"
            )
        names = self.score.names()
        if self.take == "best" and any(judge.path == POLICY for judge in self.score.judges.values()):
            problems.append(
                "take: `best` needs one judge for all rounds, and path: policy is another in each; take last"
            )
        if self.in_context is not None:
            used = {
                "keep": bool(self.keep.shares()),
                "select": self.select != SelectConfig(),
                "take": self.take == "best",
                "max_kl": self.max_kl is not None,
                "sample.from": self.sample.who != ["policy"],
            }
            problems += in_context_problems(self.score, used)
        elif len(names) > 1 and not self.score.weights:
            problems.append(f"score.weights: there are several scores, {', '.join(names)}; say what each counts")
        answers = self.sample.samples * sum(who in ("policy", "ref") for who in self.sample.who) + (
            "gold" in self.sample.who
        )
        if answers < 2 and "earlier" not in self.sample.who and self.in_context is None:
            problems.append(f"sample.samples: a pair needs at least 2 answers to a prompt, got {answers}")
        if self.score.column is not None:
            problems.append(
                "score.column: sampled answers have no labels yet; run the stages by hand to have people label them"
            )
        if problems:
            raise ValueError("\n".join(problems))


def build_rounds(tree: Tree) -> RoundsConfig | None:
    """The `rounds` section, short forms written out; problems are noted in the tree."""
    values = tree.values.get("rounds")
    if isinstance(values, Mapping):
        values = dict(values)
        if "score" in values:
            values["score"] = as_sections(values["score"])
        sample = values.get("sample")
        if isinstance(sample, Mapping):
            if "who" in sample:
                tree.problem(("rounds", "sample", "who"), f"unknown key, got {sample['who']!r}; it is written `from`")
            values["sample"] = {"who" if key == "from" else key: value for key, value in sample.items() if key != "who"}
    made = build(RoundsConfig, values, ("rounds",), tree)
    tree.problems[:] = [
        line if "unknown key" in line else line.replace("rounds.sample.who", "rounds.sample.from")
        for line in tree.problems
    ]
    return made


def by_round(train: Any, config: type, count: Any, number: int, tree: Tree | None = None) -> Any:
    """The `train` section of one round: where a number is asked for, a list gives one for each round.

    Args:
        train: The section as it is written.
        config: The configuration of the method.
        count: How many rounds there are.
        number: The round, from 1.
        tree: Where lists of another length are noted.
    """
    if not isinstance(train, Mapping):
        return train
    numbers = {f.name for f in fields(config) if isinstance(f.default, int | float) and not isinstance(f.default, bool)}
    found = dict(train)
    for key, value in train.items():
        if key in numbers and isinstance(value, list):
            if tree is not None and len(value) != count:
                tree.problem(("train", key), f"a list has one value for each of {count} rounds, got {len(value)}")
            found[key] = value[min(number, len(value)) - 1] if value else None
    return found


def check_rounds(recipe: Mapping[str, Any], method: Any, tree: Tree, off: Mapping[str, bool]) -> None:
    """Note what keeps a method from learning in rounds.

    Args:
        recipe: The sections that were built.
        method: Of `align.methods`.
        tree: Where problems are noted.
        off: Settings of `train` that this machine has not.
    """
    name, train = recipe["method"], recipe["train"]
    if method.model != "language" or method.rows == "prompts":
        own = "samples its own answers in every step" if method.rows == "prompts" else "judges answers"
        tree.problem(("rounds",), f"method {name!r} {own}; take one that learns from pairs or completions")
    if method.rows == "labels":
        tree.problem(
            ("rounds",), f"rounds make pairs, and {name!r} learns from labels; take one that learns from pairs"
        )
    if recipe["ref"] is not None and recipe["ref"].kind == "cached":
        tree.problem(
            ("ref", "kind"), "the pairs of a round are new, so nothing is cached for them; use base, adapter or model"
        )
    if recipe["rounds"].in_context is not None and method.rows != "completions":
        tree.problem(
            ("rounds", "in_context"), f"its rows are completions, and {name!r} learns from {method.rows}; take sft"
        )
    if recipe["rounds"].select.rule in ALONE and method.rows != "completions":
        tree.problem(
            ("rounds", "select", "rule"),
            f"{recipe['rounds'].select.rule!r} makes no pairs, which {name!r} learns from; take another",
        )
    if recipe["rounds"].take == "best":
        if not tree.values.get("data", {}).get("eval") or recipe["eval"].generate is None:
            tree.problem(
                ("rounds", "take"), "`best` is chosen on answers to data.eval as eval.generate says; name both"
            )
        if recipe["lora"] is None and recipe["start"] is None:
            tree.problem(
                ("rounds", "take"), "`best` is for adapters; without them take last, each round keeps its model"
            )
    if train.text_columns():
        tree.problem(("method",), f"{name!r} reads {', '.join(train.text_columns())}, which no round makes")
    if str(getattr(train.eval_strategy, "value", train.eval_strategy)) != "no":
        tree.problem(("train", "eval_strategy"), "rounds are evaluated as a whole, after each; leave it out")
    made = {*MADE, "weight"} if recipe["rounds"].select.rule == "all_pairs" else MADE
    lacking = [column for column in train.columns() if column not in made]
    if lacking:
        tree.problem(("method",), f"{name!r} reads the column {lacking[0]}, which the pairs of a round do not have")
    lists = [key for key, value in tree.values["train"].items() if isinstance(value, list)]
    for number in range(2, recipe["rounds"].count + 1) if lists else ():
        values = by_round(tree.values["train"], method.config, recipe["rounds"].count, number)
        build(method.config, {**values, **method.preset, **off}, ("train",), tree)
