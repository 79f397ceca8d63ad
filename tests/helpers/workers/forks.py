"""Commands and ranks in forks of a process that has imported everything, which saves ten seconds of each."""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from launching import ENV


class Commands:
    """Commands that run one after the other; a signal goes to the one under way."""

    def __init__(self, folder, cwd=None, **env):
        self.said = Path(folder) / "said.txt"
        self.server = subprocess.Popen(
            [sys.executable, __file__, str(self.said)], env=ENV | {"TOKENIZERS_PARALLELISM": "false"} | env, cwd=cwd,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        assert self.server.stdout.readline() == "ready\n"

    def start(self, *words, ranks=0):
        """Its process id; with `ranks`, of a process that waits for so many, each of which runs a script or `-m` module."""
        self.server.stdin.write(json.dumps([ranks, *map(str, words)]) + "\n")
        return int(self.server.stdout.readline())

    def ended(self, seconds):
        """Its exit code, -N after signal N; None if it runs on after so long."""
        if not select.select([self.server.stdout], [], [], seconds)[0]:
            return None
        return int(self.server.stdout.readline())

    def run(self, *words, watched=None, number=None, after=0.0, ranks=0):
        """Run a command, and send a signal some seconds after the start, or after a file appeared.

        Returns:
            Exit code, what was said, the seconds until `watched` was there, and all seconds.
        """
        pid, begun, seen, code = self.start(*words, ranks=ranks), time.monotonic(), 0.0, None
        while watched is not None and code is None and not watched.exists():
            code = self.ended(0.005)
            seen = time.monotonic() - begun
        if number is not None and code is None:
            code = self.ended(after)
            if code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        code = self.ended(600) if code is None else code
        assert code is not None, f"{words} did not end"
        return code, self.said.read_text(), seen, time.monotonic() - begun

    def close(self):
        self.server.stdin.close()
        self.server.wait(60)


def told(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def of_ranks(count, words):
    """The exit code of several processes of one group: of the first that fails, whose failure ends the others."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port.getsockname()[1]), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            os.environ |= group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
            of_script(words)
            os._exit(0)
        children.append(pid)
    code = 0
    for _ in children:
        pid, status = os.wait()
        children.remove(pid)
        code = code or os.waitstatus_to_exitcode(status)
        for other in children if code else ():
            os.kill(other, signal.SIGKILL)
    return code


def of_script(words):
    module, sys.argv = words[0] == "-m", words[words[0] == "-m" :]
    code = 1
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True) if module else runpy.run_path(
            sys.argv[0], run_name="__main__"
        )
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(said):
    import align.train  # noqa: F401, PLC0415
    import eval.__main__  # noqa: F401, PLC0415
    from align import cli  # noqa: PLC0415
    from align.methods import METHODS  # noqa: PLC0415

    assert all(method.trainer for method in METHODS.values())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told("ready")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
                    os.dup2(target, stream)
                ranks, *words = json.loads(line)
                try:
                    code = of_ranks(ranks, words) if ranks else cli.main(words)
                except SystemExit as error:
                    code = error.code or 0
                except BaseException:
                    traceback.print_exc()
                    code = 1
                sys.stdout.flush()
            finally:
                os._exit(code)
        told(pid)
        told(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    serve(sys.argv[1])
