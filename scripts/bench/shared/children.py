"""A benchmark's jobs, each in a process of its own, and the memory of one."""

import os
import subprocess
import sys
from pathlib import Path


def run_again(script: str, *words: str) -> None:
    """Run a script for one of its jobs, on one thread: two of a process wait for each other on a busy machine."""
    subprocess.run(
        [sys.executable, script, *words],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def mib(field: str) -> float:
    """What Linux says of this process in `/proc/self/status`, such as `VmRSS`, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024
