"""Two launchers on one machine, as on two nodes: with a folder that both see, and with one of each."""

import json
import shutil
import socket
import subprocess
import sys
import time

import pytest
from launching import ENV, ROOT
from safetensors.torch import load_file

import align

pytestmark = [pytest.mark.ddp, pytest.mark.slow]
WORDS = ("train.global_batch_size=4", "train.logging_steps=1", "train.disable_tqdm=true")
SHORT = ("train.max_steps=2", "train.save_steps=1")
TIMEOUT = 300


def by_torchrun(rank, port, job):
    """As the line of the documentation: nodes number themselves."""
    return [
        "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d",
        f"--rdzv_endpoint=127.0.0.1:{port}", f"--rdzv_id={job}", "-m", "align.train",
    ]  # fmt: skip


def by_alignkit(*words):
    """`alignkit train` on each, started as Slurm does: its environment says which node it is."""
    return lambda rank, port, job: [
        "-m", "align.cli", "train", "--nodes=2", f"--main-address=127.0.0.1:{port}", *words
    ]  # fmt: skip


@pytest.fixture
def nodes(tmp_path, unused_port):
    """Starts the two launchers of a job, each in a folder of its own."""
    started = []

    def start(job, run, *words, by=by_torchrun, recipe="rpo/tiny", **env):
        for rank, name in enumerate("ab"):
            (tmp_path / name).mkdir(exist_ok=True)
            command = [sys.executable, *by(rank, unused_port, job), str(ROOT / f"recipes/{recipe}.yaml")]
            command += [f"train.output_dir={run}", *WORDS, *words]
            own = {key: str(tmp_path / name / value) for key, value in env.items()} | {"SLURM_NODEID": str(rank)}
            with (tmp_path / f"{job}-{name}.txt").open("w") as said:
                started.append(subprocess.Popen(command, env=ENV | own, cwd=tmp_path / name, stdout=said, stderr=said))
        return started[-2:]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def unused_port():
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return port.getsockname()[1]


def ended(processes):
    return [process.wait(TIMEOUT) for process in processes]


def same(run, tmp_path):
    one = align.run(
        "rpo/tiny", [*WORDS, *SHORT, "train.per_device_train_batch_size=4", f"train.output_dir={tmp_path / 'one'}"]
    )
    found, wanted = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (run, one.path))
    for name, weight in wanted.items():
        assert found[name].flatten().tolist() == pytest.approx(weight.flatten().tolist(), rel=1e-4, abs=5e-5), name


def test_two_nodes_that_share_a_folder_equal_one_process(nodes, tmp_path):
    run = tmp_path / "shared" / "run"
    assert ended(nodes("whole", run, *SHORT)) == [0, 0]
    assert json.loads((run / "env.json").read_text())["processes"] == 2
    same(run, tmp_path)


def test_a_node_that_dies_ends_the_other_and_both_go_on_to_the_same_bits(nodes, tmp_path):
    run, whole, many = tmp_path / "shared" / "run", tmp_path / "shared" / "whole", "train.max_steps=40"
    assert ended(nodes("whole", whole, many)) == [0, 0]
    first, second = nodes("killed", run, many)
    deadline = time.monotonic() + TIMEOUT
    while not (run / "checkpoint-2" / "alignkit.json").is_file():
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.01)
    second.kill()
    assert all(ended([first, second]))
    assert not (run / "adapter").exists()
    assert ended(nodes("again", run, many, "--resume", "auto")) == [0, 0]
    assert "resuming from" in (tmp_path / "again-a.txt").read_text() + (tmp_path / "again-b.txt").read_text()
    found, wanted = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (run, whole))
    assert all((found[name] == weight).all() for name, weight in wanted.items())


def test_nodes_with_folders_of_their_own_train_and_are_not_resumed(nodes, tmp_path):
    assert ended(nodes("whole", "run", *SHORT)) == [0, 0]
    [main] = [tmp_path / name / "run" for name in "ab" if (tmp_path / name / "run" / "adapter").is_dir()]
    same(main, tmp_path)
    shutil.rmtree(main / "adapter")
    assert all(ended(nodes("again", "run", *SHORT, "--resume", "auto")))
    said = (tmp_path / "again-a.txt").read_text() + (tmp_path / "again-b.txt").read_text()
    assert "every node needs the same train.output_dir" in said or "holds no run of a recipe, but other files" in said


@pytest.mark.parametrize("words", [(), ("--accelerate-config", "ddp")])
def test_alignkit_train_on_nodes_that_share_nothing_equals_one_process(nodes, tmp_path, words):
    alone = {"ALIGNKIT_CACHE": "cache", "HF_DATASETS_CACHE": "datasets"}
    assert ended(nodes("own", "run", *SHORT, by=by_alignkit(*words), **alone)) == [0, 0]
    assert json.loads((tmp_path / "a" / "run" / "env.json").read_text())["processes"] == 2
    assert not (
        tmp_path / "b" / "run" / "adapter"
    ).exists()  # the first node, by its rank, writes what the run ends with
    same(tmp_path / "a" / "run", tmp_path)


def test_rounds_on_nodes_with_folders_of_their_own_are_refused(nodes, tmp_path):
    started = nodes("rounds", "run", by=by_alignkit(), recipe="rounds/tiny")
    assert all(ended(started))
    assert "whose rounds every process reads, and not to be found" in (tmp_path / "rounds-a.txt").read_text()
    assert not list((tmp_path / "a" / "run").glob("round-*"))


def test_accelerate_that_would_train_on_each_node_alone_is_refused(nodes, tmp_path):
    (tmp_path / "no.yaml").write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\n")
    by = by_alignkit("--accelerate-config", str(tmp_path / "no.yaml"))
    assert all(ended(nodes("alone", "run", *SHORT, by=by)))
    assert "asked for 2 processes and has started one" in (tmp_path / "alone-a.txt").read_text()
    assert not (tmp_path / "a" / "run" / "adapter").exists()
