"""Starts a training in several processes, and ends as they do: in their words, without the launcher's own traceback.

`alignkit train` becomes `python -m align.launching torchrun|accelerate WORDS`, which calls the launcher of that name.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from .files import lives

LAUNCHER = "ALIGNKIT_LAUNCHER"  # the launcher's process id, for the ranks
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def launcher(processes: int, accelerate_config: str | None) -> list[str]:
    """The command that starts `align.train` in several processes.

    With `accelerate launch` on a machine without a GPU a single process would start, whatever is asked for; there
    torchrun, which accelerate itself uses, is called directly.

    Raises:
        RunError: If the accelerate configuration does not exist.
    """
    command = [sys.executable, "-m", "align.launching"]
    if accelerate_config is None and not torch.cuda.is_available():
        return [*command, "torchrun", "--standalone", f"--nproc_per_node={processes}", "-m", "align.train"]
    command += ["accelerate", f"--num_processes={processes}"]
    if accelerate_config is not None:
        from .check.machine import accelerate_file  # noqa: PLC0415 - the launcher itself needs none of it

        command.append(f"--config_file={accelerate_file(accelerate_config)}")
    return [*command, "-m", "align.train"]


def main(argv: Sequence[str] | None = None) -> int:
    """Launch; the exit code is that of the process that failed first."""
    name, *words = sys.argv[1:] if argv is None else argv
    os.environ[LAUNCHER] = str(os.getpid())
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its errors are about the workers' own
    try:
        _launch(name, words)
    except ChildFailedError as error:
        return _code(error.get_first_failure()[1].exitcode)
    except subprocess.CalledProcessError as error:
        return _code(error.returncode)
    except SignalException as error:
        return 128 + error.sigval
    return 0


def end_with_launcher() -> None:
    """Have the kernel send SIGTERM to this rank of torchrun once torchrun is gone, by SIGKILL too.

    A rank then finishes its step and saves, as after any SIGTERM, and does not train on in a directory that another run
    takes. On Linux; elsewhere, and for processes that torchrun did not start, nothing is asked.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if not lives(int(os.environ.get(LAUNCHER, os.getppid()))):  # gone before it was asked
        signal.raise_signal(signal.SIGTERM)


def _launch(name: str, words: list[str]) -> None:
    if name == "torchrun":
        from torch.distributed.run import main as torchrun  # noqa: PLC0415 - takes a while

        torchrun(words)
        return
    from accelerate.commands.launch import launch_command, launch_command_parser  # noqa: PLC0415 - likewise

    parser: Any = launch_command_parser()
    launch_command(parser.parse_args(words))


def _code(ended: int) -> int:
    """Of a process; one that a signal ended had no words of its own."""
    if ended >= 0:
        return ended
    print(f"a process of the training was ended by {signal.Signals(-ended).name}", file=sys.stderr)  # noqa: T201
    return 128 - ended


if __name__ == "__main__":
    sys.exit(main())
