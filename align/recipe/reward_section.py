"""Reads what an online method learns from in a recipe: `rewards`, names of functions with options, or a `judge`."""

from typing import Any

from align.errors import RunError
from align.methods import Method
from align.rewards import REWARDS, make_reward
from align.strict.fields import build, describe, nearest
from align.strict.yaml_tree import Tree

from .scores import POLICY
from .sections import JudgeConfig


def build_judge(method: Method | None, tree: Tree) -> JudgeConfig | None:
    """Who compares sampled answers; problems are noted in the tree."""
    values = tree.values.get("judge")
    if values is None:
        return None
    if method is not None and not method.takes_a_judge:
        tree.problem(("judge",), "not used by this method; it compares the answers that online_dpo and its kin sample")
    elif tree.values.get("rewards") is not None:
        tree.problem(("judge",), "`rewards` compare the answers, too; keep one of the two sections")
    made = build(JudgeConfig, values, ("judge",), tree)
    if made is not None and made.path == POLICY:
        tree.problem(("judge", "path"), "the policy does not judge its own answers in the step; name a model's folder")
    return made


def build_rewards(method: Method | None, tree: Tree) -> dict[str, dict[str, Any]]:
    """Reward functions by name, with their options; problems are noted in the tree."""
    values = tree.values.get("rewards")
    if values is None:
        judged = method is not None and method.takes_a_judge and tree.values.get("judge")
        owned = method is not None and method.takes_tools and tree.values.get("environments")  # it may own a reward
        if method is not None and method.rows == "prompts" and not (judged or owned):
            judge = ", or a `judge`" if method.takes_a_judge else ""
            tree.problem(("rewards",), f"missing section; names of reward functions: {', '.join(REWARDS)}{judge}")
        return {}
    if method is not None and method.rows != "prompts":
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
