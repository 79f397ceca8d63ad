"""Holds the tools and environments that a recipe names, for policies that call tools while they answer."""

from .load import ENVIRONMENTS, TOOLS, called_by, make_environment, make_tool
from .templates import hold_tools

__all__ = ["ENVIRONMENTS", "TOOLS", "called_by", "hold_tools", "make_environment", "make_tool"]
