"""Says to a policy that has learnt rewards in context which ones are wanted, by what each of them is worth."""

import math
from collections.abc import Mapping
from pathlib import Path

from align.data.prompts.control import preference_context, reward_context, targets, tenths
from align.errors import RunError
from align.files import read_json
from align.recipe.loading import load_recipe
from align.runs.contents import CONTEXT_FILE, RECIPE_FILE

RULE = "l2"


def preferences(text: str) -> dict[str, float]:
    """What `--prefer a=0.7,b=0.3` says.

    Raises:
        RunError: If it is none such.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            equals, value = "", 0.0
        if not equals or not name.strip():
            raise RunError(f"--prefer: expected NAME=NUMBER, and more after commas, got {part!r}")
        if name.strip() in found:
            raise RunError(f"--prefer: {name.strip()!r} is named twice, got {text!r}")
        found[name.strip()] = value
    return found


def context_for(folder: Path, prefer: Mapping[str, float] | None) -> str:
    """What is written after a prompt, nothing without preferences.

    A policy that was trained with `prompt_weights` is told the weights themselves. Of others the preferences become targets by the rule l2 of Rewards in Context; a reward that is not named is worth 0.

    Args:
        folder: Of a run, or of a policy below one.
        prefer: By reward, what it is worth; only ratios matter.

    Raises:
        RunError: If the policy has no rewards in context, or none of these, or the numbers are no preferences.
    """
    if not prefer:
        return ""
    known = next((one / CONTEXT_FILE for one in (folder, folder.parent) if (one / CONTEXT_FILE).is_file()), None)
    weighed = _weighed(folder)
    if known is None and not weighed:
        raise RunError(
            f"prefer: {folder} is no run that has learnt rewards in context (no {CONTEXT_FILE}), nor with prompt_weights; leave it "
            "out"
        )
    told = {} if known is None else read_json(known)
    names = weighed or list(told["rewards"])
    other = [name for name in prefer if name not in names]
    if other:
        raise RunError(f"prefer.{other[0]}: no such reward; there are {', '.join(names)}")
    worth = [float(prefer.get(name, 0.0)) for name in names]
    if not all(0 <= one < math.inf for one in worth) or not 0 < sum(worth) < math.inf:
        raise RunError(f"prefer: must be finite, not negative and not all 0, got {dict(prefer)}")
    if weighed:
        return preference_context(dict(zip(names, tenths(worth), strict=True)))
    asked = targets(worth, RULE, low=told["low"], high=told["high"])
    return reward_context(dict(zip(names, asked, strict=True)))


def _weighed(folder: Path) -> list[str]:
    """The rewards whose weights a run's policy has learnt to read, none of another run."""
    if not (folder / RECIPE_FILE).is_file():
        return []
    recipe = load_recipe(folder / RECIPE_FILE, policy_alone=True)
    return list(recipe.rewards) if (recipe.raw.get("train") or {}).get("prompt_weights") is not None else []
