"""Reads a recipe file together with those that it extends."""

import os
from pathlib import Path

from align.errors import RecipeError
from align.strict.fields import describe
from align.strict.yaml_tree import Tree, merge, read_tree

from .shipped import find_recipe

MAX_BASES = 16


def with_bases(path: Path, seen: tuple[Path, ...] = ()) -> Tree:
    """What a recipe file says, and where it does not, the file that it extends; what that one is expected to give is its own.

    Args:
        path: The file.
        seen: The files that extend it.

    Raises:
        RecipeError: If a file cannot be read, extends itself, or too many extend one another.
    """
    if path.resolve() in seen:
        raise RecipeError(f"{path}: extends itself, through {', '.join(p.name for p in seen)}")
    if len(seen) > MAX_BASES:
        raise RecipeError(f"{seen[0]}: extends more than {MAX_BASES} files in a row; write what they say into one")
    tree = read_tree(path)
    base = tree.values.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise RecipeError(f"{path}: extends: expected a file name, got {describe(base)}")
    beside = path.parent / base
    below = with_bases(beside if os.path.isfile(beside) else find_recipe(base), (*seen, path.resolve()))
    below.values.pop("expect", None)
    return merge(below, tree)
