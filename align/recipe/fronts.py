"""Defines the part of a recipe that says which policies make a front, and what may be in the rest of such a recipe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from align.configs.parts import moves_a_part
from align.strict.fields import build
from align.strict.yaml_tree import Tree

SET_HERE = ("reward_weights", "weighting", "weighting_options", "manifold")
OF_C_MORL = ("extensions", "points", "retain", "sharpness", "steps", "most")


@dataclass
class FrontsConfig:
    """A front: several policies of one base, an adapter each, that weigh the rewards of the recipe differently."""

    kind: Literal["soups", "manifold", "c_morl"]
    """`soups`: a policy for each weight vector, then weighted sums of their adapters. `c_morl`: a policy for each weight
    vector, then the sparse points of the front extended towards each reward. `manifold`: an adapter for each reward, all
    trained at once under weights that are drawn in each step; then weighted sums of them."""
    weights: list[list[int | float]] | None = None
    """One vector a policy, one weight a reward. Default: each reward alone; for c_morl equal weights, too."""
    sweep: int | None = None
    """Of soups and manifold: how many weights from 0 to 1 along each edge, ends included; 5 by default."""
    concentration: float = 1.0
    """Of manifold: the parameter of the Dirichlet law of the weights; 1 draws all alike."""
    extensions: int = 1
    """Of c_morl: how often points are chosen and extended."""
    points: int = 2
    """Of c_morl: how many points an extension begins with, the sparsest first."""
    retain: float = 0.9
    """Of c_morl: the share of each other reward that an extension is to keep."""
    sharpness: float = 20.0
    """Of c_morl: t of the log barrier."""
    steps: int | None = None
    """Of c_morl: `train.max_steps` of an extension, where it is another than the recipe's."""
    most: int | None = None
    """Of c_morl: so many points are kept to be extended, without the most crowded."""
    reference_point: dict[str, int | float] = field(default_factory=dict)
    """By reward, the worst corner of the hypervolume. Default: what the reference policy reaches."""

    def __post_init__(self) -> None:
        problems = [
            f"weights: must be finite, not negative and not all 0, got {vector}"
            for vector in self.weights or ()
            if not vector or not all(math.isfinite(w) and w >= 0 for w in vector) or not any(vector)
        ]
        if self.weights is not None and len({tuple(v) for v in self.weights}) < max(2, len(self.weights)):
            problems.append(f"weights: at least two vectors, each once, got {self.weights}")
        if self.sweep is not None and self.sweep < 2:
            problems.append(f"sweep: must be at least 2 (both ends), got {self.sweep}")
        least = {"extensions": 1, "points": 1, "steps": 1, "most": 2}
        problems += [
            f"{name}: must be at least {low}, got {value}"
            for name, low in least.items()
            if (value := getattr(self, name)) is not None and value < low
        ]
        if not 0 <= self.retain <= 1:
            problems.append(f"retain: must be in [0, 1], got {self.retain}")
        if not 0 < self.concentration < math.inf:
            problems.append(f"concentration: must be positive and finite, got {self.concentration}")
        if not 0 < self.sharpness < math.inf:
            problems.append(f"sharpness: must be positive and finite, got {self.sharpness}")
        problems += [
            f"reference_point.{name}: must be finite, got {value}"
            for name, value in self.reference_point.items()
            if not math.isfinite(value)
        ]
        if problems:
            raise ValueError("\n".join(problems))

    def vectors(self, rewards: int) -> list[list[float]]:
        """The weights of the policies that are trained first."""
        if self.weights is not None:
            return [[float(w) for w in vector] for vector in self.weights]
        alone = [[float(i == k) for i in range(rewards)] for k in range(rewards)]
        return alone if self.kind == "soups" else [*alone, [1.0 / rewards] * rewards]


def build_fronts(tree: Tree) -> FrontsConfig | None:
    """The `fronts` section; problems are noted in the tree."""
    made = build(FrontsConfig, tree.values.get("fronts"), ("fronts",), tree)
    values = tree.values.get("fronts")
    if made is not None and isinstance(values, Mapping):
        idle = {
            "soups": (*OF_C_MORL, "concentration"),
            "manifold": (*OF_C_MORL, "weights"),
            "c_morl": ("sweep", "concentration"),
        }[made.kind]
        for name in idle:
            if name in values:
                tree.problem(("fronts", name), f"does nothing with kind {made.kind!r}; leave it out")
    return made


def check_fronts(recipe: Mapping[str, Any], method: Any, tree: Tree) -> None:
    """Note what keeps a recipe from making a front.

    Args:
        recipe: The sections that were built.
        method: Of `align.methods`.
        tree: Where problems are noted.
    """
    name, fronts, rewards = recipe["method"], recipe["fronts"], recipe["rewards"]
    if not hasattr(recipe["train"], "weighting"):
        tree.problem(
            ("method",), f"a front needs a method that weighs several rewards, got {name!r}; take dynamic_grpo"
        )
        return
    if len(rewards) < 2:
        tree.problem(("rewards",), f"a front needs at least two rewards, got {len(rewards)}")
        return
    for vector in fronts.weights or ():
        if len(vector) != len(rewards):
            tree.problem(("fronts", "weights"), f"one weight for each of {len(rewards)} rewards, got {vector}")
    point = fronts.reference_point
    if point and set(point) != set(rewards):
        tree.problem(("fronts", "reference_point"), f"a value for each of {', '.join(rewards)}, got {', '.join(point)}")
    for key in SET_HERE:
        if key in tree.values["train"]:
            tree.problem(("train", key), "is set for each policy of the front; leave it out")
    if recipe["rounds"] is not None:
        tree.problem(("rounds",), "contradicts fronts; keep one of the two sections")
    if recipe["lora"] is None and recipe["start"] is None:
        tree.problem(("lora",), "missing section; the policies of a front are adapters on one base")
    if tree.values.get("peft") is not None:
        tree.problem(("peft",), "contradicts fronts, which mix LoRA adapters; give `lora`")
        return
    if fronts.kind == "manifold" and recipe["lora"] is None:
        tree.problem(("start",), "the adapters of a manifold begin at the base; leave it out, and give `lora`")
    elif fronts.kind == "manifold":
        tree_of_lora = tree.values.get("lora") or {}
        for key in ("use_rslora", "rank_pattern", "alpha_pattern", "use_dora", "lora_bias"):
            if tree_of_lora.get(key):
                tree.problem(("lora", key), "contradicts kind manifold, whose adapters are parts of one; leave it out")
        for key in moves_a_part(recipe["train"]):
            tree.problem(("train", key), "contradicts kind manifold, whose factors are mixed; leave it out")
    if recipe["ref"] is not None and recipe["ref"].kind != "base":
        tree.problem(("ref", "kind"), f"a front is held against its base, got {recipe['ref'].kind!r}; leave it out")
    if not tree.values.get("data", {}).get("eval") or recipe["eval"] is None or recipe["eval"].generate is None:
        tree.problem(("fronts",), "is estimated on answers to data.eval as eval.generate says; name both")
    else:
        evaluated = tree.values["eval"]
        idle = [("eval", key) for key, value in evaluated.items() if key != "generate" and value is not None]
        idle += [("eval", "generate", key) for key in ("revisions", "prefer") if evaluated["generate"].get(key)]
        for path in idle:
            tree.problem(path, "does nothing in a front, whose policies are estimated by its rewards; leave it out")
        if recipe["eval"].generate.prompts < 2:
            tree.problem(("eval", "generate", "prompts"), "an interval needs at least 2 prompts")
    if str(getattr(recipe["train"].eval_strategy, "value", recipe["train"].eval_strategy)) != "no":
        tree.problem(
            ("train", "eval_strategy"), "every policy of a front is estimated when it is trained; leave it out"
        )
