"""The mutants of `mutate.py`: what is broken on purpose, and which tests should notice; one module for each area."""

from importlib import import_module
from pkgutil import iter_modules

from .mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS: list[Mutant] = [
    mutant
    for module in iter_modules(__path__)
    for mutant in getattr(import_module(f".{module.name}", __name__), "MUTANTS", [])
]
