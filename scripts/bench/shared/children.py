"""A benchmark's jobs, each in a process of its own."""

import os
import subprocess
import sys


def run_again(script: str, *words: str) -> None:
    """Run a script for one of its jobs, on one thread: two of a process wait for each other on a busy machine."""
    subprocess.run(
        [sys.executable, script, *words],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
