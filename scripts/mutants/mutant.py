"""One mutant."""

from collections.abc import Callable
from typing import NamedTuple


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def noticed_by(*tests: str) -> Callable[[str, str, str, str], Mutant]:
    return lambda name, file, old, new: Mutant(name, file, old, new, tests)
