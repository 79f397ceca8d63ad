"""Chooses how K rewards become one, by rules that move the weights of objectives while training.

`make_rule(name, base=..., ...)` gives a rule; its `update(Statistics(...))` answers each batch with a `Weighting`.
"""

from .archive import Archive, hypervolume, nondominated
from .gram import mgda_weights, upgrad_weights
from .rules import REQUIRED, RULES, Statistics, Weighting, WeightingRule, make_rule, rule_options

__all__ = [
    "REQUIRED",
    "RULES",
    "Archive",
    "Statistics",
    "Weighting",
    "WeightingRule",
    "hypervolume",
    "make_rule",
    "mgda_weights",
    "nondominated",
    "rule_options",
    "upgrad_weights",
]
