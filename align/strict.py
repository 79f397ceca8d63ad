"""Strict YAML to dataclasses: every problem is collected with its file, line and key path, none is guessed away."""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

import yaml

Where = tuple[str, ...]
MAX_DEPTH = 32
SHOWN_KEYS = 10
SHOWN_TEXT = 80
PATH_KEYS = frozenset({"path", "model_name_or_path"})


class RecipeError(ValueError):
    """A recipe that cannot be run as written; one line per problem: where, which rule, which value, what to do."""


class Tree:
    """Plain values of a recipe, where each came from, and what is wrong with them."""

    def __init__(self, origin: str) -> None:
        self.values: dict[str, Any] = {}
        self.origin = origin
        self.lines: dict[Where, str] = {}
        self.problems: list[str] = []

    def problem(self, where: Where, message: str) -> None:
        """Note a problem at a key path; its line is that of the nearest enclosing key that has one."""
        at = next((self.lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.lines), self.origin)
        key = f"{'.'.join(where)}: " if where else ""
        self.problems.append(f"{at}: {key}{message}")

    def fail_on_problems(self) -> None:
        """Raise one error that shows all problems.

        Raises:
            RecipeError: If there are any.
        """
        if self.problems:
            raise RecipeError("\n".join(dict.fromkeys(self.problems)))

    def get(self, *where: str) -> Any:
        """The value at a key path, or None."""
        value: Any = self.values
        for key in where:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_tree(path: Path) -> Tree:
    """Read one YAML file: mappings with unique string keys, no anchors, no tags.

    A value of `path` or `model_name_or_path` that starts with `./` or `../` is relative to the file.

    Raises:
        RecipeError: If the file is not readable as YAML at all.
    """
    tree = Tree(str(path))
    source = _Source(str(path), path.parent, has_lines=True)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    node, loader = _compose(text, source)
    if node is None:
        raise RecipeError(f"{path}: the file is empty; a recipe needs at least method, model, data and train")
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}: expected `key: value` lines at the top level")
    tree.values = _plain(node, (), tree, loader, source) or {}
    return tree


class _Source(NamedTuple):
    """Where YAML text comes from: its name in messages, and the folder that its relative paths start from."""

    name: str
    folder: Path
    has_lines: bool

    def at(self, mark: Any) -> str:
        return f"{self.name}:{mark.line + 1}" if self.has_lines and mark else self.name


def _compose(text: str, source: _Source) -> tuple[yaml.Node | None, yaml.SafeLoader]:
    try:
        events = [event for event in yaml.parse(text, yaml.SafeLoader) if isinstance(event, yaml.AliasEvent)]
        if events:
            raise RecipeError(f"{source.at(events[0].start_mark)}: anchors are not supported; use `extends`")
        loader = yaml.SafeLoader(text)
        return loader.get_single_node(), loader
    except RecursionError:
        raise RecipeError(f"{source.name}: nested more than {MAX_DEPTH} levels deep") from None
    except yaml.YAMLError as error:
        at, rule = source.at(getattr(error, "problem_mark", None)), getattr(error, "problem", None)
        raise RecipeError(f"{at}: not valid YAML: {rule or ' '.join(str(error).split())}") from None


def _plain(node: yaml.Node, where: Where, tree: Tree, loader: yaml.SafeLoader, source: _Source) -> Any:
    if len(where) > MAX_DEPTH:
        raise RecipeError(f"{source.at(node.start_mark)}: nested more than {MAX_DEPTH} levels deep")
    if not isinstance(node, yaml.ScalarNode) and node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        tree.problem(where, f"cannot be read: the tag {node.tag} is not supported")
        return None
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(getattr(key_node, "value", "?")) if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*where, key)
            line = source.at(key_node.start_mark)
            if key in values:
                tree.problems.append(f"{line}: {'.'.join(here)}: given twice")
            tree.lines[here] = line
            values[key] = _plain(value_node, here, tree, loader, source)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*where, str(i)), tree, loader, source) for i, item in enumerate(node.value)]
    try:
        value = loader.construct_object(node)
        if where and where[-1] in PATH_KEYS and isinstance(value, str) and value.startswith(("./", "../")):
            return str((source.folder / value).resolve())
    except (yaml.YAMLError, ValueError) as error:
        tree.problem(where, f"cannot be read: {str(error).splitlines()[0]}")
        return None
    except (KeyError, IndexError, AttributeError):  # PyYAML's answer to `!!bool x`, `!!int ''` and `!!timestamp x`
        tree.problem(where, f"cannot be read: {node.value!r} is no {node.tag.rpartition(':')[2]}")
        return None
    if isinstance(value, int) and value.bit_length() > 64:
        tree.problem(where, f"cannot be read: a whole number of {value.bit_length()} bits, more than 64")
        return None
    return value


def merge(base: Tree, child: Tree) -> Tree:
    """`child` over `base`: mappings key by key, everything else replaced."""
    result = Tree(child.origin)
    result.values = _merged(base.values, child.values)
    result.lines = base.lines | child.lines
    result.problems = base.problems + child.problems
    return result


def _merged(base: Any, child: Any) -> Any:
    if isinstance(base, dict) and isinstance(child, dict):
        return base | {key: _merged(base.get(key), value) for key, value in child.items()}
    return child


def override(tree: Tree, items: Iterable[str]) -> None:
    """Apply `section.key=value` strings; values are read as in a file, paths relative to the working directory."""
    source = _Source("command line", Path.cwd(), has_lines=False)
    for item in items:
        target, equals, text = item.partition("=")
        where = tuple(target.split("."))
        if not equals or not all(where):
            tree.problems.append(f"command line: {item!r} is not of the form section.key=value")
            continue
        tree.lines = {key: line for key, line in tree.lines.items() if key[: len(where)] != where}
        tree.lines[where] = source.name
        try:
            node, loader = _compose(text, source)
            value = None if node is None else _plain(node, where, tree, loader, source)
        except RecipeError as error:
            rule = str(error).removeprefix(f"{source.name}: ")
            tree.problems.append(f"{source.name}: {target}: {rule}, got {text[:SHOWN_TEXT]!r}")
            continue
        level = tree.values
        for depth, key in enumerate(where[:-1], start=1):
            if not isinstance(level.get(key), dict):
                level[key] = {}
                tree.lines[where[:depth]] = source.name
            level = level[key]
        level[where[-1]] = value


def build(cls: type, values: Any, where: Where, tree: Tree, hints: Mapping[str, str] | None = None) -> Any:
    """A dataclass from plain values, or None with the problems noted in `tree`.

    Args:
        cls: The dataclass; nested dataclasses, and dictionaries and lists of them, are built too.
        values: What the recipe says.
        where: Key path of `values`.
        tree: Where lines are looked up and problems are noted.
        hints: What to say about keys that are no field of `cls`, by key.
    """
    if not isinstance(values, Mapping):
        tree.problem(where, f"expected `key: value` settings, got {describe(values)}")
        return None
    before = len(tree.problems)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    types_of = typing.get_type_hints(cls)
    built = {}
    for key, value in values.items():
        if key not in fields:
            remedy = (hints or {}).get(key) or nearest(key, fields)
            tree.problem((*where, key), f"unknown key, got {value!r}; {remedy}")
        else:
            built[key] = _value(value, types_of[key], (*where, key), tree)
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in values:
            tree.problem(where, f"missing {name}")
    if len(tree.problems) > before:
        return None
    try:
        return cls(**built)
    except (ValueError, TypeError, ImportError, OSError) as error:
        for line in str(error).splitlines() or [repr(error)]:
            key, colon, rest = line.partition(": ")
            known = colon and key.split(".")[0] in fields
            tree.problem((*where, *key.split(".")) if known else where, rest if known else line)
        return None


def nearest(key: str, known: Iterable[str]) -> str:
    """What to suggest for an unknown key."""
    names = sorted(known)
    near = difflib.get_close_matches(str(key), names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = ", ..." if len(names) > SHOWN_KEYS else ""
    return f"known keys: {', '.join(names[:SHOWN_KEYS])}{more}"


def describe(value: Any) -> str:
    """A value with its type, as error messages show it."""
    return "nothing" if value is None else f"{type(value).__name__} {value!r}"


def _value(value: Any, hint: Any, where: Where, tree: Tree) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(typing.cast(Any, hint), value, where, tree)
    if origin is dict and args and dataclasses.is_dataclass(args[1]):
        if not isinstance(value, Mapping):
            tree.problem(where, f"expected named settings, got {describe(value)}")
            return None
        cls: Any = args[1]
        return {key: build(cls, item, (*where, key), tree) for key, item in value.items()}
    options = args if origin in (Union, types.UnionType) else (hint,)
    nested: list[Any] = [o for o in options if dataclasses.is_dataclass(o) and isinstance(o, type)]
    if nested and isinstance(value, Mapping):
        return build(nested[0], value, where, tree)
    if _fits(value, hint):
        return value
    if float in options and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 5e-7 as a string and 1 as an integer
        except ValueError:
            pass
    literal = next((o for o in options if typing.get_origin(o) is Literal), None)
    choices = [str(choice) for choice in typing.get_args(literal)]
    if isinstance(value, bool) and {"on", "off"} <= set(choices):  # an unquoted `on` or `off`
        return "on" if value else "off"
    if literal is not None and isinstance(value, str):
        tree.problem(where, f"must be one of {', '.join(choices)}, got {value!r}; {nearest(value, choices)}")
    else:
        takes_text = isinstance(value, bool) and any(o is str for o in options)
        remedy = "; YAML reads an unquoted yes, no, on or off as true or false: quote it" if takes_text else ""
        tree.problem(where, f"expected {_type_name(hint)}, got {describe(value)}{remedy}")
    return None


def _type_name(hint: Any) -> str:
    if hint is type(None):
        return "null"
    if typing.get_args(hint):
        return str(hint).replace("typing.", "")
    return getattr(hint, "__name__", str(hint))


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in args)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin in (list, set, tuple, Sequence):
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict) and (not args or all(_fits(item, args[1]) for item in value.values()))
    if hint is None or hint is type(None):
        return value is None
    if not isinstance(hint, type):
        return False
    if isinstance(value, bool):
        return hint is bool
    if issubclass(hint, enum.Enum):
        return isinstance(value, str) and value in [member.value for member in hint]
    return isinstance(value, hint)
