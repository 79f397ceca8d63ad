"""Finds recipe files: the shipped ones and a user's own, without importing torch or TRL."""

import os
from pathlib import Path

from align.errors import RecipeError
from align.strict.fields import nearest


def recipes_dir() -> Path:
    """The shipped recipes: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "_recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def find_recipe(name: str | Path) -> Path:
    """A recipe file: a path, or the name of a shipped recipe such as `quickstart` or `rpo/tiny`.

    Raises:
        RecipeError: If there is neither.
    """
    path = Path(name)
    if os.path.isfile(path):  # unlike Path.is_file, also answers for names too long for the file system
        return path
    stem = str(path).removesuffix(".yaml")
    shipped = recipes_dir() / f"{stem}.yaml"
    if not path.is_absolute() and ".." not in path.parts and os.path.isfile(shipped):
        return shipped
    if path.suffix and os.path.isdir(path):
        raise RecipeError(f"{str(name)!r}: is a folder, not a recipe; name a file in it")
    raise RecipeError(f"{str(name)!r}: no such recipe; {nearest(stem, list(shipped_recipes()))}")


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes by name, sorted; the files for accelerate are none."""
    files = {str(p.relative_to(recipes_dir()).with_suffix("")): p for p in recipes_dir().rglob("*.yaml")}
    return {name: files[name] for name in sorted(files) if not name.startswith("accelerate")}
