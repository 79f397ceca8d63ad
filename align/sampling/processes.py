"""Runs processes of other Python environments."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from align.findings import printable

NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
LAST_LINES = 5


def other_environment() -> dict[str, str]:
    """Our environment variables, without those that would point another interpreter at our packages."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


class NoInterpreter(RuntimeError):
    """There is no Python interpreter of that name, or it does not answer as one."""


def ask_interpreter(python: str, code: str, *, package: str) -> Any:
    """What a few lines of Python print there as JSON.

    Args:
        python: A path, or a name on PATH.
        code: Cheap to run: a minute is given.
        package: For whose sake it is asked.

    Raises:
        NoInterpreter: If it cannot be asked.
    """
    if shutil.which(python) is None:
        raise NoInterpreter(
            f"no interpreter {python!r}: name the python of the environment that {package} is installed in"
        )
    try:
        asked = subprocess.run(
            [python, "-c", code], env=other_environment(), capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NoInterpreter(f"{python} does not answer as a Python interpreter does: {error}") from error


@contextmanager
def process_group(
    command: list[str], log: Path, *, variables: dict[str, str] | None = None, piped: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of another interpreter. Neither it nor its children outlive the block.

    Args:
        command: Interpreter and arguments; no shell reads them.
        log: File of what it prints.
        variables: Further environment variables.
        piped: Its standard input and output are pipes to us; otherwise it has no input, and its output goes to the log.
    """
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=other_environment() | (variables or {}), stderr=output, start_new_session=True,
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL, stdout=subprocess.PIPE if piped else output,
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def last_lines(log: Path) -> str:
    """The end of what a process printed, safe to show."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
    return "\n".join(printable(line, 300) for line in lines) or "it printed nothing"
