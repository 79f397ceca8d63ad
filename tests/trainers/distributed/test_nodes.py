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


@pytest.fixture
def nodes(tmp_path, unused_port):
    """Starts the two launchers of a job, each in a folder of its own."""
    started = []

    def start(job, run, *words):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=2",
                "--nproc_per_node=1",
                "--rdzv_backend=c10d",
            ]
            command += [
                f"--rdzv_endpoint=127.0.0.1:{unused_port}",
                f"--rdzv_id={job}",
                "-m",
                "align.train",
                str(ROOT / "recipes/rpo/tiny.yaml"),
            ]
            command += [f"train.output_dir={run}", *WORDS, *words]
            with (tmp_path / f"{job}-{name}.txt").open("w") as said:
                started.append(subprocess.Popen(command, env=ENV, cwd=tmp_path / name, stdout=said, stderr=said))
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
