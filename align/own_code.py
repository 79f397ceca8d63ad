"""Runs a file of its user's own that adds rewards, losses, weighting rules, judges or tools to the tables that recipes name.

Nothing but `--allow-file FILE` on the command line, or `align.allow_file` in Python, makes a file run. A run keeps a copy of it
in `code/`, and its recipe says name and digest, so that whoever evaluates or resumes it is asked for the same file.
"""

import argparse
import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import RunError
from align.findings import printable

FOLDER = "code"
"""Of a run: copies of the files that it needs."""
TABLES = {
    "rewards": "align.rewards.load:REWARDS",
    "losses of pairs": "align.losses.objectives:OBJECTIVES",
    "losses of completions": "align.losses.token_objectives:OBJECTIVES",
    "weighting rules": "align.weighting.rules:RULES",
    "judges": "align.judges.scorers:JUDGES",
    "tools": "align.tools.load:TOOLS",
    "environments": "align.tools.load:ENVIRONMENTS",
}
"""What a file may add to. By what the entries are, the table."""
CALLED = ("judges", "tools")
"""Kinds whose entries have nothing in common but that they can be called."""


class OwnFile(NamedTuple):
    """A file that was run."""

    path: Path
    sha256: str
    text: bytes
    adds: dict[str, tuple[str, ...]]
    """By kind of entry, the names that it added."""


_FILES: dict[str, OwnFile] = {}


def allow_file(path: str | Path) -> OwnFile:
    """Run a file, once, for what it adds to the tables of rewards, losses, weighting rules, judges, tools and environments.

    Raises:
        RunError: If it cannot be read or run, adds nothing, or takes a name that is taken.
    """
    path = Path(path)
    where = f"--allow-file {path}"
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise RunError(f"{where}: expected a file NAME.py, the name of letters, digits and _")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RunError(f"{where}: cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(text).hexdigest()
    known = _FILES.get(path.name)
    if known is not None and known.sha256 == digest:
        return known
    if known is not None:
        raise RunError(f"{where}: another file {path.name} is in use ({known.path}); rename one of them")
    tables = {kind: _table(place) for kind, place in TABLES.items()}
    before = {kind: dict(table) for kind, table in tables.items()}
    try:
        _run(path)
        for kind, table in tables.items():
            taken = [name for name, entry in before[kind].items() if table.get(name) is not entry]
            if taken:
                raise RunError(f"{where}: {taken[0]!r} is there already among the {kind}; choose another name")
        adds = {kind: tuple(name for name in table if name not in before[kind]) for kind, table in tables.items()}
        if not any(adds.values()):
            raise RunError(f"{where}: adds nothing to the tables of {', '.join(TABLES)}; see README.md, own code")
        _refuse_other_kinds(where, tables, adds, before)
        for kind, wrap in (("losses of pairs", _of_pairs), ("losses of completions", _of_completions)):
            for name in adds[kind]:
                entry = tables[kind][name]
                tables[kind][name] = entry._replace(loss=_watched(f"{path.name}: the loss {name!r}", entry.loss, wrap))
    except BaseException:
        for kind, table in tables.items():
            table.clear()
            table.update(before[kind])
        raise
    made = OwnFile(path, digest, text, {kind: names for kind, names in adds.items() if names})
    _FILES[path.name] = made
    return made


def allow_file_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-file`, which runs what it names as soon as it is read."""
    parser.add_argument(
        "--allow-file", action=_Allow, default=[], metavar="FILE.py",
        help="run this file of your own, whose rewards, losses, weighting rules, judges and tools the recipe names",
    )  # fmt: skip


def digests() -> dict[str, str]:
    """Name and sha256 of each file that was run."""
    return {name: file.sha256 for name, file in sorted(_FILES.items())}


def adds(kind: str) -> dict[str, str]:
    """Names of one kind that files added, with the file's name."""
    return {name: file.path.name for file in _FILES.values() for name in file.adds.get(kind, ())}


def lacking(wanted: Any, folder: Path) -> list[str]:
    """What a recipe that needs files of one's own lacks, one line each.

    Args:
        wanted: The recipe's `own_code`: name and sha256.
        folder: That the recipe lies in; a run's own copies are in `code/` there.
    """
    if not isinstance(wanted, Mapping) or not all(isinstance(each, str) for each in (*wanted, *wanted.values())):
        return [f"expected names of files with their sha256, got {printable(repr(wanted), 100)}"]
    found = []
    for name, digest in wanted.items():
        given = _FILES.get(name)
        if given is not None and given.sha256 == digest:
            continue
        kept = folder / FOLDER / name
        place = kept if kept.is_file() else name
        told = (
            f"needs code of {printable(name)} (sha256 {printable(digest[:12])})"
            if given is None
            else f"{given.path} is not the {printable(name)} that this was made with ({given.sha256[:12]}, not {printable(digest[:12])})"
        )
        found.append(f"{told}; if you trust it, add --allow-file {place}")
    return found


def keep_copies(run: Path) -> None:
    """Write a copy of each file that was run into the run directory."""
    for name, file in _FILES.items():
        (run / FOLDER).mkdir(exist_ok=True)
        (run / FOLDER / name).write_bytes(file.text)


def _refuse_other_kinds(
    where: str,
    tables: Mapping[str, dict[str, Any]],
    adds: Mapping[str, Sequence[str]],
    before: Mapping[str, dict[str, Any]],
) -> None:
    """Refuse an entry that is not of the kind of those that are there; a judge or a tool is whatever can be called."""
    for kind, names in adds.items():
        like = next(iter(before[kind].values()), None) if kind not in CALLED else None
        for name in names:
            entry = tables[kind][name]
            if like is None:
                wanted, fits = "something to call", callable(entry)
            elif isinstance(like, type):
                wanted, fits = "a class", isinstance(entry, type)
            else:
                wanted = f"a {type(like).__name__}(...) of something to call"
                fits = isinstance(entry, type(like)) and callable(
                    getattr(entry, "reward", getattr(entry, "loss", None))
                )
            if not fits:
                raise RunError(
                    f"{where}: {name!r} among the {kind} is a {type(entry).__name__}, and must be {wanted}; see README.md, own "
                    "code"
                )


def _table(place: str) -> dict[str, Any]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _run(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"alignkit_own.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except RunError:
        raise
    except (Exception, SystemExit) as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == spec.origin), None
        )
        line = getattr(error, "lineno", None) or line
        told = printable(f"{type(error).__name__}: {error}", 300)
        raise RunError(f"--allow-file {path}: {f'line {line}: ' if line else ''}{told}") from error


def _watched(where: str, loss: Callable[..., Any], size: Callable[[Any], Any]) -> Callable[..., Any]:
    """A loss whose errors name it, and whose result has one value for each row."""

    @functools.wraps(loss)
    def watched(*args: Any, **settings: Any) -> Any:
        try:
            values = loss(*args, **settings)
        except Exception as error:
            raise RunError(f"{where} failed: {printable(f'{type(error).__name__}: {error}', 300)}") from error
        expected = tuple(size(args[-1]))
        if getattr(values, "shape", None) is None or tuple(values.shape) != expected:
            got = tuple(getattr(values, "shape", ())) if hasattr(values, "shape") else type(values).__name__
            raise RunError(f"{where} must give one value for each row, a tensor of shape {expected}, got {got}")
        return values

    return watched


def _of_pairs(batch: Any) -> Any:
    return batch.policy.chosen.shape


def _of_completions(batch: Any) -> Any:
    return batch.token_logps.shape[:1]


class _Allow(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Run the file, and remember its name."""
        allow_file(values)
        names: Sequence[str] = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*names, values])
