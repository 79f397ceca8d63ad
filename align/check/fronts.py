"""Says what a front will train, and whether all of it can be made, before a weight is loaded."""

from collections.abc import Collection
from typing import Any

from align.data.loading import Loaded
from align.findings import Finding
from align.fronts.plan import policies_at_most
from align.fronts.ready import check_front
from align.recipe.loading import Recipe


def inspect_front(recipe: Recipe, sets: Loaded, steps: int, allow: Collection[str]) -> Finding:
    """The refusals of `alignkit front`, and a line on what it trains, at most.

    Raises:
        DataError: If prompts or their columns cannot be used.
        RunError: If a reward cannot be made; one whose code may not run here is not looked at.
    """
    foreign = [name for name in recipe.rewards if ":" in name and name not in allow]
    prompts = len(check_front(recipe, allow, sets=sets, scorers=not foreign)[0])
    settings: Any = recipe.eval.generate
    message = (
        f"{recipe.fronts and recipe.fronts.kind}: at most {policies_at_most(recipe)} policies of {steps:,} steps, each "
        f"estimated on {prompts * settings.samples:,} answers to {prompts:,} prompts"
    )
    return Finding("note", "fronts", "fronts", message, "nothing to do")
