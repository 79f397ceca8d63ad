"""Makes the tools and environments that a recipe names. No recipe makes a file run: it names what is in these tables."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import get_json_schema

from align.errors import RunError
from align.findings import printable
from align.strict.fields import build, nearest
from align.strict.yaml_tree import Tree

from .search import Search, SearchEnvironment
from .templates import hold_tools

TOOLS: dict[str, Any] = {"search": Search}
"""A tool is a function as TRL takes it (annotated, with a Google-style docstring), or a dataclass of its options whose
`tool()` makes that function. A file of one's own may add to it."""
ENVIRONMENTS: dict[str, Any] = {"search": SearchEnvironment}
"""An environment is a class as TRL takes it, with `reset(**row)`, tools for its other public methods and, if it owns a reward,
`get_reward()`; the fields of a dataclass are its options. A file of one's own may add to it."""

ROUTE = "environment"
"""The column of the data that names a row's environment."""


def settled(table: Mapping[str, Any], name: str, options: Mapping[str, Any], where: str) -> Any:
    """The entry of a table with its options, of which nothing is read yet.

    Raises:
        RunError: If the name or an option is unknown, missing or out of range.
    """
    if name not in table:
        raise RunError(f"{where}: unknown, got {name!r}; {nearest(name, table)}; --allow-file FILE.py adds your own")
    entry = table[name]
    if not dataclasses.is_dataclass(entry):
        if options:
            raise RunError(f"{where}: takes no options, got {', '.join(options)}")
        return entry
    tree = Tree(where)
    made = build(entry, dict(options), (), tree)  # type: ignore[arg-type]
    if tree.problems:
        raise RunError("\n".join(tree.problems))
    return made


def make_tool(name: str, **options: Any) -> Callable[..., Any]:
    """A tool of `TOOLS` as TRL takes it; its `__name__`, by which it is called, is the name.

    Raises:
        RunError: If it cannot be made, or has no annotations or docstring to tell the model of it by.
    """
    where = f"tool {name!r}"
    made = settled(TOOLS, name, options, where)
    tool = _named(name, made.tool() if hasattr(made, "tool") else made)
    try:
        get_json_schema(tool)
    except Exception as error:  # of a function of one's own: it tells what is missing
        told = printable(str(error).splitlines()[0], 200)
        raise RunError(f"{where}: the model cannot be told of it: {told}; see align/tools/load.py, TOOLS") from error
    return tool


def make_environment(name: str, **options: Any) -> Callable[[], Any]:
    """What makes an environment of `ENVIRONMENTS`, one for each rollout.

    Raises:
        RunError: If it cannot be made, or has no `reset`.
    """
    where = f"environment {name!r}"
    settled(ENVIRONMENTS, name, options, where)
    factory = functools.partial(ENVIRONMENTS[name], **options)
    if not callable(getattr(ENVIRONMENTS[name], "reset", None)):
        raise RunError(f"{where}: has no method `reset`, with which a rollout begins")
    return factory


def owned_rewards(recipe: Any) -> list[str]:
    """Names of the rewards that the environments of a recipe own: those of their classes."""
    made = [make_environment(name, **options)() for name, options in recipe.environments.items()]
    return list(dict.fromkeys(type(one).__name__ for one in made if hasattr(one, "get_reward")))


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A tool by the name that the recipe gives it; one that ends Python fails instead, as other failures do."""

    @functools.wraps(function)
    def tool(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SystemExit as error:
            raise RuntimeError(f"it ended with {error.code}") from error

    tool.__name__ = name
    return tool


def called_by(recipe: Any, tokenizer: PreTrainedTokenizerBase, columns: Collection[str]) -> dict[str, Any]:
    """What a trainer is given so that the policy of a recipe calls tools; its tokenizer's template then holds them.

    One environment serves every row. Of several, or where the data have a column `environment`, that column names the row's.

    Raises:
        RunError: If a tool or an environment cannot be made, or the template cannot hold tools.
    """
    hold_tools(tokenizer)
    made: dict[str, Any] = {"tools": [make_tool(name, **options) for name, options in recipe.tools.items()] or None}
    factories = {name: make_environment(name, **options) for name, options in recipe.environments.items()}
    by_row = len(factories) > 1 or ROUTE in columns
    made["environment_factory"] = (factories if by_row else next(iter(factories.values()))) if factories else None
    return made
