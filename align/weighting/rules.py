"""Names the weighting rules."""

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from .base import Statistics, Weighting, WeightingRule
from .gradient_rules import MGDA, GradientInfluence, GramFunction, UPGrad
from .hypervolume_rules import Hypervolume, HypervolumeGradient
from .reward_rules import PAMA, Barrier, Dirichlet, Fixed, MaxMin, Schedule

__all__ = ["REQUIRED", "RULES", "Statistics", "Weighting", "WeightingRule", "make_rule", "rule_options"]

RULES: dict[str, type[WeightingRule]] = {
    "fixed": Fixed,
    "schedule": Schedule,
    "dirichlet": Dirichlet,
    "hypervolume": Hypervolume,
    "hypervolume_gradient": HypervolumeGradient,
    "gradient_influence": GradientInfluence,
    "mgda": MGDA,
    "upgrad": UPGrad,
    "max_min": MaxMin,
    "barrier": Barrier,
    "pama": PAMA,
    "gram": GramFunction,
}

REQUIRED = inspect.Parameter.empty
"""The default of an option that has none."""


def rule_options(name: str) -> dict[str, Any]:
    """The options of a rule and their defaults; `REQUIRED` for an option that must be given.

    Raises:
        ValueError: If there is no such rule.
    """
    if name not in RULES:
        raise ValueError(f"weighting rule {name!r}: unknown; {_nearest(name, RULES)}")
    parameters = inspect.signature(RULES[name]).parameters
    return {option: parameter.default for option, parameter in parameters.items() if option != "base"}


def make_rule(name: str, *, base: Sequence[float], **options: Any) -> WeightingRule:
    """The rule called `name`.

    Args:
        name: A key of `RULES`.
        base: One weight for each objective; what it means is said by the rule.
        **options: The rule's own; `rule_options` lists them.

    Raises:
        ValueError: If the rule or an option is unknown, missing or out of range.
    """
    known = rule_options(name)
    for option in options:
        if option not in known:
            hint = _nearest(option, known) if known else "it has no options"
            raise ValueError(f"weighting rule {name}: unknown option {option!r}; {hint}")
    missing = [option for option, default in known.items() if default is REQUIRED and option not in options]
    if missing:
        raise ValueError(f"weighting rule {name}: needs {', '.join(missing)}")
    return RULES[name](base, **options)


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
