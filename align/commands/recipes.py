"""Lists the shipped recipes, or shows one, without importing torch or TRL."""

import argparse
from collections.abc import Sequence

from align.errors import RunError
from align.recipe.shipped import shipped_recipes


def main(argv: Sequence[str]) -> int:
    """`alignkit recipes [NAME]`.

    Raises:
        RunError: If there is no shipped recipe of that name.
    """
    parser = argparse.ArgumentParser(prog="alignkit recipes", allow_abbrev=False)
    parser.add_argument("name", nargs="?", help="show this recipe")
    name, recipes = parser.parse_args(argv).name, shipped_recipes()
    if name is None:
        for known, path in recipes.items():
            print(f"{known:32} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        return 0
    if name not in recipes:
        raise RunError(f"{name}: no such shipped recipe; see `alignkit recipes`")
    print(recipes[name].read_text(encoding="utf-8"), end="")
    return 0
