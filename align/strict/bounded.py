"""Runs what a stranger's text asks for in a process of its own, so that neither time nor memory of ours is its to take."""

import json
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

SECONDS = 20.0  # of processor time; twice that of the clock, on a machine that others use too
EXTRA_BYTES = 1 << 30
LARGEST = 1 << 24
PAGE = os.sysconf("SC_PAGE_SIZE")


class OutOfBounds(ValueError):
    """What was asked for took more time or memory than it may have. The message says which, and no more."""


def bounded(work: Callable[[], Any], *, seconds: float = SECONDS, extra_bytes: int = EXTRA_BYTES) -> Any:
    """What `work` returns, computed in a fork of this process that may take so much time and memory.

    Args:
        work: Takes nothing, touches no device and starts no thread; what it returns is plain enough for JSON.
        seconds: Of processor time; on the clock it may take twice as long.
        extra_bytes: Beyond what this process holds.

    Raises:
        OutOfBounds: If it takes longer, or more.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child uses none
        child = os.fork()
    if child == 0:
        _answer(work, write, seconds, extra_bytes)
    os.close(write)
    try:
        said = _all_of(read, time.monotonic() + 2 * seconds)
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)  # it has answered, or will not
        _, status = os.waitpid(child, 0)
    if said is None or (
        not said and os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    ):
        raise OutOfBounds(f"it takes more than {seconds:g} seconds")
    try:
        kind, value = json.loads(said)
    except ValueError:
        raise OutOfBounds(f"it takes more than {extra_bytes >> 20} MiB of memory, or ends the process") from None
    if kind == "memory":
        raise OutOfBounds(f"it takes more than {extra_bytes >> 20} MiB of memory")
    if kind == "size":
        raise OutOfBounds(f"it gives more than {LARGEST >> 20} MiB")
    if kind == "error":
        raise RuntimeError(value)
    return value


def _answer(work: Callable[[], Any], write: int, seconds: float, extra_bytes: int) -> None:
    """The child's whole life; it never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        held = int(open("/proc/self/statm").read().split()[0]) * PAGE if os.path.exists("/proc/self/statm") else 0  # noqa: SIM115
        if held:
            resource.setrlimit(resource.RLIMIT_AS, (held + extra_bytes, resource.RLIM_INFINITY))
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        try:
            said = json.dumps(["value", work()])
            if len(said) > LARGEST:
                said = '["size", null]'
        except MemoryError:
            said = '["memory", null]'
        except BaseException as error:
            said = json.dumps(["error", f"{type(error).__name__}: {str(error)[:10_000]}"])
        with os.fdopen(write, "w") as pipe:
            pipe.write(said)
    finally:
        os._exit(0)


def _all_of(read: int, until: float) -> str | None:
    """Everything that comes through a pipe until it is closed; None if it is not closed in time."""
    parts = []
    while (left := until - time.monotonic()) > 0:
        if select.select([read], [], [], left)[0]:
            part = os.read(read, 1 << 16)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)
    return None
