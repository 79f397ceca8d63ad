"""Answers, line by line, whether two LaTeX expressions are equal. Run by `align.rewards.expressions` as a script.

Only LaTeX is read: math-verify's reader of other expressions evaluates them as Python.
"""

import contextlib
import json
import sys
from importlib import import_module
from typing import Any

MEMORY_BYTES = 4 * 2**30


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on every system

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> None:
    """Say `null` when ready, then `true` or `false` for every line `["gold", "stated"]`."""
    library: Any = import_module("math_verify")

    def read(expression: str) -> Any:
        return library.parse(f"${expression.replace('$', '')}$", [library.LatexExtractionConfig()], parsing_timeout=0)

    _limit_memory()
    print("null", flush=True)  # noqa: T201 - the answer itself
    for line in sys.stdin:
        gold, stated = json.loads(line)
        try:
            equal = bool(library.verify(read(gold), read(stated), timeout_seconds=0))
        except Exception:  # whatever its parser raises, the expressions are not known to be equal
            equal = False
        print(json.dumps(equal), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
