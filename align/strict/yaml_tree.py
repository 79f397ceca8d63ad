"""Reads YAML strictly: every problem is collected with its file, line and key path, none is guessed away."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from align.errors import RecipeError
from align.findings import SHOWN_LINE, printable

Where = tuple[str, ...]
MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_PROBLEMS = 100
SHOWN_TEXT = 80
PATH_KEYS = frozenset({"path", "model_name_or_path", "adapter"})
COMMAND_LINE = "command line"
REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
NEEDS_NO_QUOTES = re.compile(r"[\w./-]+")


def as_scalar(text: str) -> str:
    """A text as YAML has it on one line, in quotes unless it is read as the same text without."""
    return text if NEEDS_NO_QUOTES.fullmatch(text) and yaml.safe_load(text) == text else json.dumps(text)


class Tree:
    """Plain values of a recipe, where each came from, and what is wrong with them."""

    def __init__(self, origin: str) -> None:
        self.values: dict[str, Any] = {}
        self.origin = origin
        self.lines: dict[Where, str] = {}
        self.problems: list[str] = []
        self.unreadable: set[Where] = set()
        """Key paths whose values could not be read, which is noted."""
        self.unread: frozenset[str] = frozenset()
        """Sections that nothing is wanted of: what is wrong with what a file says there is passed over."""
        self._passed_over: set[str] = set()

    def problem(self, where: Where, message: str) -> None:
        """Note a problem at a key path; its line is that of the nearest enclosing key that has one.

        Raises:
            RecipeError: If there are more problems than anybody would read.
        """
        key = f"{'.'.join(where)}: " if where else ""
        self.problems.append(printable(f"{self._said_at(where) or self.origin}: {key}{message}", SHOWN_LINE))
        if where and where[0] in self.unread and self.is_from_file(where):
            self._passed_over.add(self.problems[-1])
        if len(self.problems) > MAX_PROBLEMS:
            self.problems.append(f"{self.origin}: more than {MAX_PROBLEMS} problems; the rest is not shown")
            self.fail_on_problems()

    def cannot_read(self, where: Where, why: str) -> None:
        """Note that a value cannot be read; nothing else is said of it."""
        self.problem(where, f"cannot be read: {why}")
        self.unreadable.add(where)

    def is_from_file(self, where: Where) -> bool:
        """Whether a file says the value at a key path, rather than the command line."""
        return self._said_at(where) != COMMAND_LINE

    def _said_at(self, where: Where) -> str | None:
        return next((self.lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in self.lines), None)

    def fail_on_problems(self) -> None:
        """Raise one error that shows all problems.

        Raises:
            RecipeError: If there are any.
        """
        found = [line for line in dict.fromkeys(self.problems) if line not in self._passed_over]
        if found:
            raise RecipeError("\n".join(found))

    def get(self, *where: str) -> Any:
        """The value at a key path, or None."""
        value: Any = self.values
        for key in where:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_tree(path: Path) -> Tree:
    """Read one YAML file: mappings with unique string keys, no anchors, no tags.

    A value of `path`, `model_name_or_path` or `adapter` that starts with `./` or `../` is relative to the file, and a
    `train.output_dir` of `.` is the folder that the file lies in.

    Raises:
        RecipeError: If the file is not readable as YAML at all, or is larger than a recipe can be.
    """
    tree = Tree(str(path))
    source = _Source(str(path), path.parent, has_lines=True)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: larger than {MAX_BYTES:,} bytes; a recipe is a page of settings")
        text = content.decode("utf-8")
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
    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):  # one at a time: what follows a refused one is never read
            if isinstance(event, yaml.AliasEvent):
                raise RecipeError(f"{source.at(event.start_mark)}: anchors are not supported; use `extends`")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH + 1:
                raise RecipeError(f"{source.at(event.start_mark)}: nested more than {MAX_DEPTH} levels deep")
        loader = yaml.SafeLoader(text)
        return loader.get_single_node(), loader
    except yaml.YAMLError as error:
        at, rule = source.at(getattr(error, "problem_mark", None)), getattr(error, "problem", None)
        raise RecipeError(f"{at}: not valid YAML: {rule or ' '.join(str(error).split())}") from None


def _plain(node: yaml.Node, where: Where, tree: Tree, loader: yaml.SafeLoader, source: _Source) -> Any:
    if len(where) > MAX_DEPTH:  # an override starts below the top
        raise RecipeError(f"{source.at(node.start_mark)}: nested more than {MAX_DEPTH} levels deep")
    if not isinstance(node, yaml.ScalarNode) and node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        return tree.cannot_read(where, f"the tag {node.tag} is not supported")
    # Sections: every key once, with its line.
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(getattr(key_node, "value", "?")) if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*where, key)
            line = source.at(key_node.start_mark)
            tree.lines[here] = line
            if key in values:
                tree.problem(here, "given twice")
            if _is_hidden(key):
                tree.problem(here, "cannot be read: the key holds a control character")
            values[key] = _plain(value_node, here, tree, loader, source)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*where, str(i)), tree, loader, source) for i, item in enumerate(node.value)]
    # Values: as YAML reads them, then paths made absolute.
    try:
        value = loader.construct_object(node)
        if where and where[-1] in PATH_KEYS and isinstance(value, str) and value.startswith(("./", "../")):
            return str((source.folder / value).resolve())
        if where == ("train", "output_dir") and value in (".", "./") and source.has_lines:
            return str(source.folder.resolve())
    except (yaml.YAMLError, ValueError) as error:
        return tree.cannot_read(where, str(error).splitlines()[0])
    except (KeyError, IndexError, AttributeError):  # PyYAML's answer to `!!bool x`, `!!int ''` and `!!timestamp x`
        return tree.cannot_read(where, f"{node.value!r} is no {node.tag.rpartition(':')[2]}")
    if isinstance(value, int) and value.bit_length() > 64:
        return tree.cannot_read(where, f"a whole number of {value.bit_length()} bits, more than 64")
    if isinstance(value, str) and _is_hidden(value):
        return tree.cannot_read(where, f"{value[:SHOWN_TEXT]!r} holds a control character")
    return value


def _is_hidden(text: str) -> bool:
    """Whether showing the text would do something else than show it: terminal escapes, reordering, surrogates."""
    return any(c in REORDERING or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs")) for c in text)


def merge(base: Tree, child: Tree) -> Tree:
    """`child` over `base`: mappings key by key, everything else replaced."""
    result = Tree(child.origin)
    result.values = _merged(base.values, child.values)
    result.lines = base.lines | child.lines
    result.problems = base.problems + child.problems
    result.unreadable = base.unreadable | child.unreadable
    return result


def _merged(base: Any, child: Any) -> Any:
    if isinstance(base, dict) and isinstance(child, dict):
        return base | {key: _merged(base.get(key), value) for key, value in child.items()}
    return child


def override(tree: Tree, items: Iterable[str]) -> None:
    """Apply `section.key=value` strings; values are read as in a file, paths relative to the working directory."""
    source = _Source(COMMAND_LINE, Path.cwd(), has_lines=False)
    for item in [items] if isinstance(items, str) else items:
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
        level: Any = tree.values
        for depth, key in enumerate(where[:-1], start=1):
            if isinstance(level, list):
                level = level[int(key)] if _numbers(level, key) else None
            else:
                if not isinstance(level.get(key), dict | list):
                    level[key] = {}
                    tree.lines[where[:depth]] = source.name
                level = level[key]
            if not isinstance(level, dict | list):
                break
        if isinstance(level, dict):
            level[where[-1]] = value
        elif isinstance(level, list) and _numbers(level, where[-1]):
            level[int(where[-1])] = value
        else:
            tree.problems.append(f"{source.name}: {target}: no such entry of a list; entries are numbered from 0")


def _numbers(entries: list[Any], key: str) -> bool:
    """Whether a key is the number of an entry that is there."""
    return key.isascii() and key.isdigit() and int(key) < len(entries)
