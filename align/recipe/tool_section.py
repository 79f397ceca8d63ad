"""Reads what a policy may call in a recipe: `tools` and `environments`, names with options."""

from typing import Any

from align.errors import RunError
from align.methods import Method
from align.strict.fields import describe
from align.strict.yaml_tree import Tree
from align.tools.load import ENVIRONMENTS, TOOLS, settled

TABLES = {"tools": TOOLS, "environments": ENVIRONMENTS}


def build_tools(method: Method | None, tree: Tree) -> dict[str, dict[str, dict[str, Any]]]:
    """By section, names with their options; problems are noted in the tree."""
    return {section: _named(section, method, tree) for section in TABLES}


def _named(section: str, method: Method | None, tree: Tree) -> dict[str, dict[str, Any]]:
    values = tree.values.get(section)
    if values is None:
        return {}
    if method is not None and not method.takes_tools:
        tree.problem((section,), "not used by this method; dynamic_grpo and reinforce train a policy that calls tools")
    if tree.values.get("rounds") is not None:
        tree.problem((section,), "`rounds` samples answers without tools; remove one of the two")
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        twice = sorted({name for name in values if values.count(name) > 1})
        if twice:
            tree.problem((section,), f"{twice[0]!r} is named twice")
        values = dict.fromkeys(values)
    if not isinstance(values, dict) or not values:
        tree.problem((section,), f"expected names, or names with options, got {describe(values)}")
        return {}
    found = {}
    for name, options in values.items():
        where = (section, str(name))
        if not isinstance(options, dict | None):
            tree.problem(where, f"expected options, got {describe(options)}")
            continue
        found[str(name)] = dict(options or {})
        try:
            settled(TABLES[section], str(name), options or {}, "")
            if tree.values.get("fronts") is not None and hasattr(TABLES[section][str(name)], "get_reward"):
                tree.problem(
                    where,
                    "owns a reward, which the weights of `fronts` do not reach; take one that owns none, or a tool",
                )
        except RunError as error:
            for line in str(error).splitlines():
                tree.problem(where, line.removeprefix(": "))
    return found
