"""Compares two mathematical expressions by math-verify, in a process of its own.

A model may write anything, and a short expression can keep a computer algebra system busy for ever or fill the memory
(a tower of powers). So math-verify runs in a child that is killed when it does not answer in time; nothing of it runs
in the process that trains, in any thread of it.
"""

import json
import logging
import queue
import re
import subprocess
import sys
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)

LONGEST_EXPRESSION = 200  # characters
START_SECONDS, ANSWER_SECONDS = 120.0, 5.0
_SPACES = re.compile(r"\s+|\\[,;:! ]|\\left(?![a-z])|\\right(?![a-z])")


def same_expression(gold: str, stated: str) -> bool:
    """Whether two expressions are equal: as text without spaces, else by math-verify where it is installed.

    What is longer than 200 characters, cannot be read, or takes longer than five seconds counts as different.
    """
    if _as_text(gold) == _as_text(stated):
        return True
    if max(len(gold), len(stated)) > LONGEST_EXPRESSION:
        return False
    if not _installed():
        return False
    return _verified(gold, stated)


def _as_text(expression: str) -> str:
    for old, new in ((r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), ("$", "")):
        expression = expression.replace(old, new)
    return _SPACES.sub("", expression).rstrip(".")


@lru_cache(maxsize=1)
def _installed() -> bool:
    if find_spec("math_verify") is not None:
        return True
    logger.warning(
        "answers that are no plain numbers are compared as text; pip install 'alignkit[rewards]' compares values"
    )
    return False


@lru_cache(maxsize=4096)
def _verified(gold: str, stated: str) -> bool:
    return _CHILD.ask([gold, stated])


class _Child:
    """The process that runs math-verify; started when first asked, and again after it had to be killed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.lock = threading.Lock()

    def ask(self, expressions: list[str]) -> bool:
        with self.lock:
            try:
                if self.process is None or self.process.poll() is not None:
                    self._start()
                assert self.process is not None
                assert self.process.stdin is not None
                self.process.stdin.write(json.dumps(expressions) + "\n")
                self.process.stdin.flush()
                return json.loads(self.answers.get(timeout=ANSWER_SECONDS)) is True
            except (queue.Empty, OSError, ValueError):
                self._kill()
                logger.warning(
                    "math-verify gave no answer on %r in %g s; it counts as wrong", expressions, ANSWER_SECONDS
                )
                return False

    def _start(self) -> None:
        command = [sys.executable, "-I", str(Path(__file__).with_name("math_verify_child.py"))]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the training, which finishes its step with it
            text=True,
            encoding="utf-8",
        )
        self.answers = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self.process, self.answers), daemon=True).start()
        self.answers.get(timeout=START_SECONDS)

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _pump(process: "subprocess.Popen[str]", answers: "queue.SimpleQueue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("null")  # it ended: nobody need wait


_CHILD = _Child()
