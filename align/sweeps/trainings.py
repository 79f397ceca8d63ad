"""Runs of `alignkit` in processes of their own, each at its place: a GPU, or a share of the threads."""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import RunError


def places_of(options: argparse.Namespace, gpus: int) -> list[dict[str, str]]:
    """What the environment of each of the runs at a time says besides: its GPU, or on a CPU its share of the threads.

    Raises:
        RunError: If there are fewer GPUs than runs, or each of several runs should have several processes.
    """
    if options.jobs < 1:
        raise RunError(f"--jobs: must be at least 1, got {options.jobs}")
    if options.jobs == 1:
        return [{}]
    if options.num_processes is not None or options.accelerate_config is not None:
        raise RunError("--jobs: each of several runs at a time is one process; leave its launcher out, or --jobs")
    if not gpus:
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        return [{"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}] * options.jobs
    if options.jobs > gpus:
        raise RunError(f"--jobs: each run has a GPU of its own, and {gpus} are visible, got {options.jobs}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = list(map(str, range(gpus))) if visible is None else [name.strip() for name in visible.split(",")]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[: options.jobs]]


class Trainings:
    """Runs of `alignkit` in processes of their own, which are handed the signals that come.

    Each is in a group of its own: Ctrl-C would reach it twice, and the second ends it before it has saved.
    """

    def __init__(self) -> None:
        self.stopped = 0
        """The exit code of those that do not begin any more, once one was stopped."""
        self._living: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Trainings":
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        with self._lock:
            self.stopped = 128 + number
            for process in self._living:
                process.send_signal(number)

    def run(self, words: Sequence[str], given: Mapping[str, str], log: Path | None) -> int:
        """Run one to its end.

        Args:
            words: Of its command line.
            given: What its environment says besides.
            log: A file that is given what it says, in place of the terminal.

        Returns:
            Its exit code; `stopped` if it is not begun any more.
        """
        with self._lock, open(os.devnull if log is None else log, "ab") as file:
            if self.stopped:
                return self.stopped
            said: Any = None if log is None else file
            process = subprocess.Popen(
                [sys.executable, "-m", "align", *words],
                process_group=0, env={**os.environ, **given}, stdout=said, stderr=said,
            )  # fmt: skip
            self._living.add(process)
        code = process.wait()
        with self._lock:
            self._living.discard(process)
        return code if code >= 0 else 128 - code
