"""Several processes are started and ended in the words of a training, without a launcher's traceback."""

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from launching import ENV, records
from torch.distributed import DistStoreError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from align import cli, launching, train
from align.errors import RunError
from align.runs.checkpoints import check, newest_checkpoint


def failed(code):
    return ChildFailedError("align.train", {0: ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")})


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (failed(2), 2, ""),
        (failed(-9), 137, "a process of the training was ended by SIGKILL\n"),
        (subprocess.CalledProcessError(2, "x"), 2, ""),
        (SignalException("x", signal.SIGINT), 130, ""),
        (
            DistStoreError("Timed out after 9 seconds waiting for clients. 1/2 clients joined.\nmore"),
            2,
            f"nodes: they did not come together: Timed out after 9 seconds waiting for clients. 1/2 clients joined.; {launching.TOGETHER}\n",
        ),
    ],
)
def test_it_ends_as_the_process_that_failed_first(monkeypatch, capsys, error, code, said):
    def launch(name, words):
        assert (name, words) == ("torchrun", ["--standalone", "-m", "align.train"])
        if error is not None:
            raise error

    monkeypatch.setattr(launching, "_launch", launch)
    assert launching.main(["torchrun", "--standalone", "-m", "align.train"]) == code
    assert capsys.readouterr().err == said


def started(monkeypatch, *words):
    """The command that `alignkit train` becomes."""
    found = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(cli.os, "execv", lambda program, command: found.append(command))
    assert cli.main(["train", "rpo/tiny", *words]) in (1, 2)
    return found[0][2:] if found else None


def test_on_several_nodes_each_starts_its_own_and_knows_the_first(monkeypatch):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    two = ("--nodes", "2", "--main-address", "node1:29500")
    one = started(monkeypatch, *two, "--node-rank", "1", "--num-processes", "4")
    assert one == [
        "align.launching", "torchrun", "--nnodes=2", "--node_rank=1", "--master_addr=node1", "--master_port=29500",
        "--nproc_per_node=4", "-m", "align.train", "rpo/tiny",
    ]  # fmt: skip
    sharded = started(monkeypatch, *two, "--node-rank", "0", "--num-processes", "4", "--accelerate-config", "zero2")
    assert sharded[1:8] == [
        "accelerate", "--num_processes=8", "--num_machines=2", "--machine_rank=0", "--main_process_ip=node1",
        "--main_process_port=29500", "--deepspeed_multinode_launcher=standard",
    ]  # fmt: skip
    assert sharded[8].endswith("zero2.yaml")
    monkeypatch.setenv("SLURM_NODEID", "1")
    assert "--node_rank=1" in started(monkeypatch, *two)
    assert "--node_rank=0" in started(monkeypatch, *two, "--node-rank", "0")
    monkeypatch.setattr("align.train.main", lambda words: 1)
    assert started(monkeypatch, "--nodes", "1") is None  # trains here


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--node-rank", "1"], "--nodes how many machines"),
        (["--main-address", "a:1"], "--nodes how many machines"),
        (["--nodes", "0"], "--nodes: must be at least 1, got 0"),
        (["--nodes", "2", "--main-address", "a:1"], "--node-rank: give each machine its own"),
        (["--nodes", "2", "--node-rank", "1"], "--main-address: every machine needs HOST:PORT"),
        (["--nodes", "2", "--node-rank", "2", "--main-address", "a:1"], "--node-rank: 2 is not one of 0 to 1"),
        (["--nodes", "2", "--node-rank", "-1", "--main-address", "a:1"], "--node-rank: -1 is not one of 0 to 1"),
        (["--nodes", "2", "--node-rank", "0", "--main-address", "a"], "expected HOST:PORT"),
        (["--nodes", "2", "--node-rank", "0", "--main-address", "a:70000"], "expected HOST:PORT"),
    ],
)
def test_what_is_missing_of_nodes_is_said_before_anything_starts(monkeypatch, capsys, words, said):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    assert started(monkeypatch, *words) is None
    assert said in capsys.readouterr().err


def test_a_node_rank_of_nodes_that_slurm_numbers(monkeypatch):
    monkeypatch.setenv("SLURM_NODEID", "3")
    options = SimpleNamespace(nodes=2, node_rank=None, main_address="a:1")
    with pytest.raises(RunError, match="--node-rank: 3 is not one of 0 to 1"):
        launching.nodes_of(options)


@pytest.mark.parametrize(("rank", "waited"), [("0", []), ("1", [train.PATIENCE]), (None, [])])
def test_the_main_process_speaks_first(monkeypatch, capsys, tmp_path, rank, waited):
    slept = []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    monkeypatch.setenv("RANK", rank) if rank else monkeypatch.delenv("RANK", raising=False)
    assert train.main(["dpo/tiny", "train.beta=-1", f"train.output_dir={tmp_path}"]) == 2
    assert slept == waited
    assert "beta" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "error", "code"), [("0", "Connection closed by peer [::1]", 2), ("1", "boom", None)])
def test_nobody_shows_a_traceback_while_another_process_tells_why(monkeypatch, capsys, tmp_path, rank, error, code):
    def ended(*args, **kw):
        raise RuntimeError(error)

    slept = []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    monkeypatch.setattr(train, "run", ended)
    monkeypatch.setenv("RANK", rank)
    if code is None:
        with pytest.raises(RuntimeError, match=error):
            train.main(["dpo/tiny"])
    else:
        assert train.main(["dpo/tiny"]) == code
        assert "another process of this run has ended" in capsys.readouterr().err
    assert slept == [train.PATIENCE]


@pytest.mark.parametrize(("rank", "level"), [("0", logging.WARNING), ("1", logging.ERROR)])
def test_one_process_says_what_all_find(monkeypatch, rank, level):
    said = []
    monkeypatch.setattr(train.logging, "basicConfig", lambda **kw: said.append(kw["level"]))
    monkeypatch.setattr(train.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("RANK", rank)
    assert train.main(["dpo/tiny", "train.beta=-1"]) == 2
    assert said == [level]


@pytest.mark.slow
def test_an_error_is_told_once_and_without_a_traceback(tmp_path):
    words = [
        "train",
        "dpo/tiny",
        "--num-processes",
        "2",
        "train.learning_rate=5.0",
        f"train.output_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "align.cli", *words], env=ENV, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.count("no optimizer of these trains anything at such a rate") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("started", "ends"), [({"TORCHELASTIC_RUN_ID": "x"}, True), ({}, False)])
def test_a_rank_ends_with_its_launcher_however_that_ended(started, ends):
    """The rank holds one end of a pipe until it ends; the launcher is killed."""
    reads, writes = os.pipe()
    agent = os.fork()
    if agent == 0:
        if os.fork() == 0:
            os.environ |= started | {launching.LAUNCHER: str(os.getppid())}
            launching.end_with_launcher()
            os.write(writes, str(os.getpid()).encode())
            time.sleep(30)
            os._exit(0)
        os.close(writes)
        time.sleep(30)
        os._exit(0)
    os.close(writes)
    rank = int(os.read(reads, 20))
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    ended = bool(select.select([reads], [], [], 10 if ends else 0.5)[0])
    with contextlib.suppress(ProcessLookupError):
        os.kill(rank, signal.SIGKILL)
    os.close(reads)
    assert ended == ends


def test_a_rank_whose_launcher_is_gone_already_does_not_begin(monkeypatch):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    came = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv(launching.LAUNCHER, str(gone.pid))
    monkeypatch.setattr(launching.ctypes, "CDLL", lambda _: type("C", (), {"prctl": staticmethod(lambda *a: None)}))
    monkeypatch.setattr(launching.signal, "raise_signal", came.append)
    launching.end_with_launcher()
    assert came == [signal.SIGTERM]


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_rank_and_a_second_run_waits_for_the_first(tmp_path):
    """The first process is stopped while its launcher dies, so that it is there still when a second run begins."""
    run = tmp_path / "run"
    words = ["train", "dpo/tiny", "train.max_steps=2000", "train.save_steps=2000", f"train.output_dir={run}"]
    command = [sys.executable, "-m", "align.cli", *words]
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen([*command, "--num-processes", "2"], env=ENV, stdout=said, stderr=said)
        until = time.monotonic() + 300
        while not (run / "metrics.jsonl").is_file() or not records(run):
            assert first.poll() is None, (tmp_path / "said").read_text()[-3000:]
            assert time.monotonic() < until
            time.sleep(0.1)
        rank = int((run / ".lock").read_text().split()[1])
        os.kill(rank, signal.SIGSTOP)
        first.kill()
        first.wait()
        second = subprocess.run(
            [*command, "--resume", "auto"], env=ENV, capture_output=True, text=True, timeout=300, check=False
        )
        os.kill(rank, signal.SIGCONT)
    assert second.returncode == 2
    assert f"process {rank} on " in second.stderr
    assert "is writing this run; wait for its end" in second.stderr
    until = time.monotonic() + 60
    while launching.lives(rank):
        assert time.monotonic() < until, "a rank lives on"
        time.sleep(0.1)
    saved = check(newest_checkpoint(run))["step"]
    assert saved == max(record["step"] for record in records(run)) < 2000
