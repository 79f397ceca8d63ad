"""Names the errors that a user's input can cause, and hides the warnings that no user can mend."""

import contextlib
import io
import os
import signal
import sys
import threading
import warnings

from .findings import SHOWN_LINE, printable


class RunError(ValueError):
    """A run directory that cannot be used as asked. The message says what to do."""


class DataError(ValueError):
    """Data that cannot be trained on as it is. The message names the source, the rows and the reasons."""


class RecipeError(ValueError):
    """A recipe that cannot be run as written; one line per problem: where, which rule, which value, what to do.

    Control characters are escaped, so that a recipe cannot write to the terminal that shows what is wrong with it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(printable(line, SHOWN_LINE) for line in message.split("\n")))


INTERRUPTED = 128 + signal.SIGINT  # the exit code after Ctrl-C, as a shell would say

USER_ERRORS = (RecipeError, DataError, RunError, OSError)  # OSError: a model or a folder that is not there


UPSTREAM = {
    "jinja2:TemplateError": "the chat template refuses a conversation of the data",
    "safetensors:SafetensorError": "weights cannot be read or written (is the disk full?)",
    "torch:OutOfMemoryError": "the device's memory is full; use smaller batches or shorter rows",
}
"""Errors of libraries that what a user gave can cause at any time, by package and name, and what they mean."""
LOST = ("Connection closed by peer", "Connection reset by peer")
ANOTHER_ENDED = "another process of this run has ended, and the run with it; it says why"
MOMENT = 0.05  # seconds, in which a finalizer is left
METRIC = "`metric_for_best_model`"


def in_words(error: BaseException) -> str | None:
    """What to tell a user of an error that what they gave has caused, in printable lines; None if it is not one."""
    if isinstance(error, USER_ERRORS):
        return "\n".join(printable(line, SHOWN_LINE) for line in (str(error) or repr(error)).split("\n"))
    said = printable(" ".join(str(error).split()) or repr(error), SHOWN_LINE)
    for cls in type(error).__mro__:
        meaning = UPSTREAM.get(f"{cls.__module__.partition('.')[0]}:{cls.__name__}")
        if meaning is not None:
            return f"{meaning}: {said}"
    if isinstance(error, RuntimeError) and any(words in said for words in LOST):  # by gloo
        return ANOTHER_ENDED
    if isinstance(error, KeyError) and METRIC in said:
        return f"train.metric_for_best_model: {said}"
    return None


def as_a_command() -> None:
    """What a command settles first: warnings, its terminal, and interrupts."""
    quiet_upstream()
    any_terminal()
    keep_interrupts()


def quiet_upstream() -> None:
    """Hide what libraries say of their own future: nothing that a user of ours could mend."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def any_terminal() -> None:
    """Let a terminal that has few characters show the others escaped, and read what is no text as U+FFFD; Python would stop.

    What a program has read from already stays as it is.
    """
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):
                stream.reconfigure(errors=errors)


def keep_interrupts() -> None:
    """Have an interrupt that comes in a finalizer, where Python prints it and goes on, come once more a moment later."""

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
        elif not sys.is_finalizing():
            again = threading.Timer(MOMENT, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()

    sys.unraisablehook = hook


def lost_output(error: BaseException) -> str | None:
    """What to tell of an error that is standard output's, which takes no more of what is printed; None of any other.

    Python names no file in such an error. An empty line tells whether it was this one.
    """
    if not isinstance(error, OSError) or error.errno is None or error.filename is not None:
        return None
    try:
        number = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return None
    try:
        os.write(number, b"\n")
    except OSError as again:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)  # or Python complains once more in the end
        return f"standard output: cannot be written: {again.strerror}; name another file or program for it"
    return None
