"""Starts a training in several processes, and ends as they do: in their words, without the launcher's own traceback.

`alignkit train` becomes `python -m align.launching torchrun|accelerate WORDS`, which calls the launcher of that name.
"""

import argparse
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from .errors import RunError
from .files import lives

LAUNCHER = "ALIGNKIT_LAUNCHER"  # the launcher's process id, for the ranks
TOGETHER = (
    "start the same command on every node within ten minutes, with a port of the first that is free and can be reached"
)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Nodes(NamedTuple):
    """Of a run on several machines: how many, which of them this is, and where the first one listens."""

    machines: int
    rank: int
    host: str
    port: int


def node_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `nodes_of` reads."""
    parser.add_argument(
        "--nodes", type=int, help="machines that take part; the same command is started on each of them"
    )
    parser.add_argument("--node-rank", type=int, help="which of them this is, from 0; default: what Slurm says")
    parser.add_argument("--main-address", metavar="HOST:PORT", help="the first of them, and a free port there")


def nodes_of(options: argparse.Namespace) -> Nodes | None:
    """What was said of several machines; None where nothing was, or of one machine alone.

    Raises:
        RunError: If something is missing, or cannot be.
    """
    rank, address = options.node_rank, options.main_address
    if options.nodes is None and (rank is not None or address is not None):
        raise RunError("--node-rank, --main-address: say with --nodes how many machines take part")
    if options.nodes is None:
        return None
    if options.nodes < 1:
        raise RunError(f"--nodes: must be at least 1, got {options.nodes}")
    slurm = os.environ.get("SLURM_NODEID", "")
    rank = int(slurm) if rank is None and slurm.isdigit() else rank
    if options.nodes == 1:
        rank = rank or 0
    elif rank is None:
        raise RunError("--node-rank: give each machine its own, from 0 to --nodes less one; the first has 0")
    elif address is None:
        raise RunError("--main-address: every machine needs HOST:PORT of the first one, such as node1:29500")
    if not 0 <= rank < options.nodes:
        raise RunError(f"--node-rank: {rank} is not one of 0 to {options.nodes - 1}")
    host, _, port = (address or "localhost:29500").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise RunError(f"--main-address: expected HOST:PORT, such as node1:29500, got {address!r}")
    return None if options.nodes == 1 else Nodes(options.nodes, rank, host.strip("[]"), int(port))


def launcher(processes: int, accelerate_config: str | None, nodes: Nodes | None = None) -> list[str]:
    """The command that starts `align.train` in several processes.

    With `accelerate launch` on a machine without a GPU a single process would start, whatever is asked for, and on several
    with a GPU each one process of its own run; there torchrun, which accelerate itself uses, is called directly.

    Args:
        processes: How many on this machine.
        accelerate_config: A file, or the name of a shipped one.
        nodes: Of several machines.

    Raises:
        RunError: If the accelerate configuration does not exist.
    """
    command = [sys.executable, "-m", "align.launching"]
    if accelerate_config is None and (nodes is not None or not torch.cuda.is_available()):
        where = ["--standalone"]
        if nodes is not None:
            where = [f"--nnodes={nodes.machines}", f"--node_rank={nodes.rank}"]
            where += [f"--master_addr={nodes.host}", f"--master_port={nodes.port}"]
        return [*command, "torchrun", *where, f"--nproc_per_node={processes}", "-m", "align.train"]
    command += ["accelerate", f"--num_processes={processes * (1 if nodes is None else nodes.machines)}"]
    if nodes is not None:
        command += [f"--num_machines={nodes.machines}", f"--machine_rank={nodes.rank}"]
        command += [f"--main_process_ip={nodes.host}", f"--main_process_port={nodes.port}"]
        command.append("--deepspeed_multinode_launcher=standard")  # else it would start the others by itself, over ssh
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
    except DistError as error:
        said = str(error).partition("\n")[0]
        print(f"nodes: they did not come together: {said}; {TOGETHER}", file=sys.stderr)  # noqa: T201 - its own message
        return 2
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
