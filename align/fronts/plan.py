"""Says of every policy of a front where its files are and with which recipe it is trained; nothing here loads weights."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from align.recipe.loading import Recipe
from align.rounds.plan import RECIPE, TRAINED
from align.weighting.reward_rules import kept

NOT_OF_A_POLICY = ("fronts", "data", "eval", "expect")
POLICIES, SOUPS, ENDS = "policies", "soups", "ends"


class Place(NamedTuple):
    """Where the files of a policy are."""

    run: Path
    name: str

    @property
    def folder(self) -> Path:
        """Of the policy."""
        return self.run / POLICIES / self.name

    @property
    def recipe(self) -> Path:
        """Of its training."""
        return self.folder / RECIPE

    @property
    def trained(self) -> Path:
        """Its run directory."""
        return self.folder / TRAINED

    @property
    def answers(self) -> Path:
        """What it answered to the prompts that policies are estimated on."""
        return self.folder / "answers.jsonl"

    @property
    def scores(self) -> Path:
        """Its answers with all rewards."""
        return self.folder / "scores.jsonl"


def policies_at_most(recipe: Recipe) -> int:
    """How many policies are trained, at most."""
    fronts: Any = recipe.fronts
    count = len(recipe.rewards)
    if fronts.kind == "manifold":
        return 1
    extended = fronts.extensions * fronts.points * count if fronts.kind == "c_morl" else 0
    return len(fronts.vectors(count)) + extended


def first_recipe(recipe: Recipe, weights: Sequence[float]) -> dict[str, Any]:
    """The recipe of a policy for a weight vector: an ordinary one."""
    raw = _of_a_policy(recipe)
    raw["train"] |= {"weighting": "fixed", "reward_weights": list(weights)}
    return raw


def manifold_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe of a manifold: one adapter of all members' rank, scaled as each of them would be."""
    fronts: Any = recipe.fronts
    lora: Any = recipe.lora
    raw, members = _of_a_policy(recipe), len(recipe.rewards)
    raw["lora"] = dict(raw["lora"]) | {"r": lora.r * members, "lora_alpha": lora.lora_alpha * members}
    options = {"concentration": fronts.concentration, "seed": recipe.train.seed}
    raw["train"] |= {"weighting": "dirichlet", "weighting_options": options, "manifold": True}
    return raw


def extension_recipe(recipe: Recipe, start: Path, values: Sequence[float], objective: int) -> dict[str, Any]:
    """The recipe of an extension: from the adapter of a member towards one reward, the others kept by a log barrier.

    Args:
        recipe: With `fronts`.
        start: The run directory of the member.
        values: The member's estimates, from which the thresholds follow, and do not move.
        objective: Which reward is to grow.
    """
    fronts: Any = recipe.fronts
    raw = _of_a_policy(recipe)
    raw.pop("lora", None)
    floors: list[float | None] = kept(torch.tensor(values, dtype=torch.float64), fronts.retain).tolist()
    floors[objective] = None
    options = {"target": objective, "thresholds": floors, "sharpness": fronts.sharpness}
    raw["start"] = {"adapter": str(start)}
    raw["train"] |= {"weighting": "barrier", "weighting_options": options}
    raw["train"] |= {} if fronts.steps is None else {"max_steps": fronts.steps}
    return raw


def _of_a_policy(recipe: Recipe) -> dict[str, Any]:
    raw = {name: copy.deepcopy(value) for name, value in recipe.raw.items() if name not in NOT_OF_A_POLICY}
    raw["data"] = {"train": copy.deepcopy(recipe.raw["data"]["train"])}
    raw["train"] = dict(raw["train"]) | {"output_dir": TRAINED}
    return raw
