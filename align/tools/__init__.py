"""Holds the tools and environments that a recipe names, for policies that call tools while they answer."""

from .calling import Begun, Calling, calling_of
from .load import ENVIRONMENTS, TOOLS, called_by, make_environment, make_tool, owned_rewards
from .templates import hold_tools, read_calls

__all__ = [
    "ENVIRONMENTS", "TOOLS", "Begun", "Calling", "called_by", "calling_of", "hold_tools", "make_environment", "make_tool", "owned_rewards",
    "read_calls",
]  # fmt: skip
