"""Lists the shipped recipes, or shows one as a file that runs where it lies, without importing torch or TRL."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from align.errors import RunError
from align.recipe.shipped import recipes_dir, shipped_recipes
from align.strict.yaml_tree import PATH_KEYS, as_scalar


def main(argv: Sequence[str]) -> int:
    """`alignkit recipes [NAME]`.

    Raises:
        RunError: If there is no shipped recipe of that name.
    """
    parser = argparse.ArgumentParser(prog="alignkit recipes", allow_abbrev=False)
    parser.add_argument("name", nargs="?", help="show this recipe; `> mine.yaml` makes it one of your own")
    name, recipes = parser.parse_args(argv).name, shipped_recipes()
    if name is None:
        for known, path in recipes.items():
            print(f"{known:32} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        return 0
    if name not in recipes:
        raise RunError(f"{name}: no such shipped recipe; see `alignkit recipes`")
    print(own_copy(recipes[name]), end="")
    return 0


def own_copy(recipe: Path) -> str:
    """The text of a shipped recipe, comments and all, that means the same in any folder.

    Paths that are relative to the recipe become absolute, and what it extends is named as a shipped recipe.
    """
    text = recipe.read_text(encoding="utf-8")
    for node, value in sorted(_relative(yaml.compose(text), recipe), key=lambda found: -found[0].start_mark.index):
        text = text[: node.start_mark.index] + as_scalar(value) + text[node.end_mark.index :]
    return text


def _relative(node: yaml.Node | None, recipe: Path, key: str = "") -> Iterator[tuple[yaml.ScalarNode, str]]:
    """Values that mean something else in another folder, and what is to take their place."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _relative(value, recipe, str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _relative(value, recipe, key)
    elif isinstance(node, yaml.ScalarNode) and key in PATH_KEYS and node.value.startswith(("./", "../")):
        yield node, str((recipe.parent / node.value).resolve())
    elif isinstance(node, yaml.ScalarNode) and key == "extends" and (recipe.parent / node.value).is_file():
        beside = (recipe.parent / node.value).resolve()
        yield node, str(beside.relative_to(recipes_dir().resolve()).with_suffix(""))
