"""The mutants of `mutate.py`: what is broken on purpose, and which tests should notice; one module for each area."""

from importlib import import_module
from pkgutil import walk_packages

from .mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS: list[Mutant] = [
    mutant
    for module in walk_packages(__path__, f"{__name__}.")
    for mutant in getattr(import_module(module.name), "MUTANTS", [])
]
