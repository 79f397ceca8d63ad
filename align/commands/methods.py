"""Lists every method that a recipe can name: its paper, the rows it learns from, and a recipe to begin with."""

import argparse
import json
import re
from collections.abc import Sequence
from functools import cache

from align.methods import METHODS
from align.recipe.shipped import shipped_recipes

METHOD_LINE = re.compile(r"(?m)^method:\s*(\w+)")

NEEDED = {"robust": ("train.label_smoothing=0.1",)}
"""What a method needs beyond the settings of its family's recipe."""


def main(argv: Sequence[str]) -> int:
    """`alignkit methods [--json]`."""
    parser = argparse.ArgumentParser(prog="alignkit methods", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="for programs")
    rows = [method_row(name) for name in METHODS]
    if parser.parse_args(argv).json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['method']:18} {row['rows']:12} {row['paper'] or '-':11} {row['title']}\n{'':18} {row['recipe']}")
    return 0


def method_row(name: str) -> dict[str, str | None]:
    """What the list says of a method: name, title, arXiv id, rows, and the words after `alignkit train`."""
    method = METHODS[name]
    return {
        "method": name, "title": method.title, "paper": method.arxiv, "rows": method.rows, "recipe": recipe_for(name)
    }  # fmt: skip


def recipe_for(name: str) -> str:
    """A shipped recipe of the method, the smallest if there are several; else one of its family with `method=NAME`."""
    found = _methods_of_recipes()
    by_size = sorted(found, key=lambda recipe: ("tiny" not in recipe, recipe))
    own = [recipe for recipe in by_size if found[recipe] == name]
    if own:
        return own[0]
    family = [r for r in by_size if METHODS[found[r]].config is METHODS[name].config and METHODS[found[r]].preset]
    return " ".join([family[0], f"method={name}", *NEEDED.get(name, ())])


@cache
def _methods_of_recipes() -> dict[str, str]:
    """The method of each shipped recipe that names one itself."""
    return {
        recipe: match[1]
        for recipe, path in shipped_recipes().items()
        if (match := METHOD_LINE.search(path.read_text(encoding="utf-8")))
    }
