"""Reads the `rewards` section of a recipe: names of reward functions, with their options."""

from typing import Any

from align.data import Rows
from align.errors import RunError
from align.rewards import REWARDS, make_reward
from align.strict.fields import describe, nearest
from align.strict.yaml_tree import Tree


def build_rewards(rows: Rows | None, tree: Tree) -> dict[str, dict[str, Any]]:
    """Reward functions by name, with their options; problems are noted in the tree."""
    values = tree.values.get("rewards")
    if values is None:
        if rows == "prompts":
            tree.problem(("rewards",), f"missing section; names of reward functions: {', '.join(REWARDS)}")
        return {}
    if rows not in (None, "prompts"):
        tree.problem(("rewards",), "not used by this method; rewards belong to online methods")
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        twice = sorted({name for name in values if values.count(name) > 1})
        if twice:
            tree.problem(("rewards",), f"{twice[0]!r} is named twice")
        values = dict.fromkeys(values)
    if not isinstance(values, dict) or not values:
        tree.problem(("rewards",), f"expected names of reward functions, or names with options, got {describe(values)}")
        return {}
    for name, options in values.items():
        if not isinstance(options, dict | None):
            tree.problem(("rewards", str(name)), f"expected options, got {describe(options)}")
        elif name in REWARDS:
            try:
                make_reward(name, **(options or {}))
            except (RunError, TypeError) as error:
                tree.problem(("rewards", name), str(error).removeprefix(f"reward {name!r}: "))
        elif ":" not in str(name):
            tree.problem(("rewards", str(name)), f"unknown reward; {nearest(str(name), REWARDS)}; or MODULE:FUNCTION")
    return {
        str(name): dict(options)
        for name, options in values.items()
        if isinstance(options, dict | None)
        for options in [options or {}]
    }
