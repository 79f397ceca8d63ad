"""Tries the patterns of an adapter's settings on the names of a model's modules, within a bound of time.

A pattern such as `(.*)*x` takes longer than anybody waits, and PEFT tries each on every module.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from align.errors import RunError
from align.findings import printable
from align.strict.bounded import OutOfBounds, bounded

TEXTS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "target_parameters")
TABLES = ("rank_pattern", "alpha_pattern")
SECONDS = 2.0
REPEATS = re.compile(r"[*+{?]")
LONGEST = 10_000


def refuse_endless(config: Any, names: Sequence[str], where: str) -> None:
    """Refuse settings of an adapter with a pattern that is none, or that takes too long on these names.

    Args:
        config: PEFT's.
        names: Of modules.
        where: What holds the settings, for messages.

    Raises:
        RunError: Naming setting and pattern.
    """
    for setting, pattern in _patterns(config):
        if len(pattern) > LONGEST:
            raise RunError(f"{where}.{setting}: a pattern of {len(pattern):,} characters; at most {LONGEST:,} are read")
        try:
            compiled = re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise RunError(f"{where}.{setting}: {printable(pattern)!r} is no regular expression: {error}") from None
        if not REPEATS.search(pattern):
            continue

        def work(compiled: re.Pattern[str] = compiled) -> None:
            for name in names:
                compiled.fullmatch(name)

        try:
            bounded(work, seconds=SECONDS)
        except OutOfBounds as error:
            raise RunError(
                f"{where}.{setting}: {printable(pattern)!r} cannot be tried on the model's layers: {error}; write a simpler one"
            ) from None


def _patterns(config: Any) -> Iterator[tuple[str, str]]:
    for setting in TEXTS:
        value = getattr(config, setting, None)
        if isinstance(value, str):
            yield setting, value
    for setting in TABLES:
        for key in getattr(config, setting, None) or {}:
            yield setting, rf"(.*\.)?({key})$"
