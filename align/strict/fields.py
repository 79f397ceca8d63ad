"""Fits plain values to the declared types of dataclass fields, and says why where one does not fit."""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union

from .yaml_tree import Tree, Where, as_scalar

SHOWN_KEYS = 10


def build(cls: type, values: Any, where: Where, tree: Tree, hints: Mapping[str, str] | None = None) -> Any:
    """A dataclass from plain values, or None with the problems noted in `tree`.

    Args:
        cls: The dataclass; nested dataclasses, and dictionaries and lists of them, are built too. What to say about keys
            that it does not have on purpose, it may hold as `INSTEAD`.
        values: What the recipe says.
        where: Key path of `values`.
        tree: Where lines are looked up and problems are noted.
        hints: What to say about keys that are no field of `cls`, by key.
    """
    if not isinstance(values, Mapping):
        is_path = isinstance(values, str) and any(f.name == "path" for f in dataclasses.fields(cls))
        remedy = f"; write {{path: {as_scalar(values)}}}" if is_path else ""
        tree.problem(where, f"expected `key: value` settings, got {describe(values)}{remedy}")
        return None
    before = len(tree.problems)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    types_of = typing.get_type_hints(cls)
    built = {}
    for key, value in values.items():
        if key not in fields:
            remedy = (hints or {}).get(key) or getattr(cls, "INSTEAD", {}).get(key) or nearest(key, fields)
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
            line = _of_field(line, built)
            key, colon, rest = line.partition(": ")
            known = colon and key.split(".")[0] in fields
            tree.problem((*where, *key.split(".")) if known else where, rest if known else line)
        return None


def _of_field(line: str, values: Mapping[str, Any]) -> str:
    """What an enumeration says of a value, `VALUE is not a valid KIND, please ...`, with the key of the one field that has the value."""
    own = [
        key for key, value in values.items() if isinstance(value, str) and line.startswith(f"{value} is not a valid ")
    ]
    return f"{own[0]}: {line}" if len(own) == 1 else line


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
    if where in tree.unreadable:
        return None  # which is said already
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
    if nested and (isinstance(value, Mapping) or (isinstance(value, str) and not _fits(value, hint))):
        return build(nested[0], value, where, tree)
    if isinstance(value, list) and any(o == list[each] for o in options for each in nested):
        return [build(nested[0], item, (*where, str(k)), tree) for k, item in enumerate(value)]
    if _fits(value, hint):
        return value
    if float in options and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 5e-7 as a string and 1 as an integer
        except ValueError:
            pass
    if list[float] in options and isinstance(value, list) and not any(isinstance(each, bool) for each in value):
        try:
            return [float(each) for each in value]
        except (TypeError, ValueError):
            pass
    if dict[str, float] in options and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        try:
            if not any(isinstance(each, bool) for each in value.values()):
                return {key: float(each) for key, each in value.items()}
        except (TypeError, ValueError):
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
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_type_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is list and dataclasses.is_dataclass(typing.get_args(hint)[0]):
        return "a list of them"
    if dataclasses.is_dataclass(hint):
        return "`key: value` settings"
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
