"""`alignkit sweep`: settings all checked before any is trained, gone on with, several at a time, compared in the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace

import pytest

from align import cli, train
from align.check.machine import Machine
from align.errors import RunError
from align.recipe.shipped import recipes_dir
from align.sweeps import command, trainings
from align.sweeps.grid import read_space
from align.sweeps.trainings import Trainings, places_of


@pytest.fixture
def unchecked(monkeypatch):
    """A check takes a second for each setting."""
    monkeypatch.setattr(command, "refuse_all", lambda *_: None)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Sweeps whose trainings are functions: `fail` has the exit codes of those that end otherwise than with 0."""
    monkeypatch.chdir(tmp_path)
    trained, compared, fail = [], [], {}

    def start(words):
        folder = next(word for word in words if word.startswith("train.output_dir=")).partition("=")[2]
        trained.append((folder, words))
        code = fail.get(folder, 0)
        if not code:
            (tmp_path / folder / "adapter").mkdir(parents=True)
            (tmp_path / folder / "recipe.resolved.yaml").touch()
        return code

    monkeypatch.setattr(Trainings, "run", lambda _, words, given, log: start(words))
    monkeypatch.setattr(cli, "_compare", lambda words: compared.append(words) or 0)

    def run(*words, recipe="dpo/tiny"):
        trained.clear()
        compared.clear()
        return cli.main(["sweep", recipe, *words, "-o", "out"])

    return type("World", (), {"run": staticmethod(run), "trained": trained, "compared": compared, "fail": fail, "path": tmp_path})  # fmt: skip


@pytest.mark.usefixtures("unchecked")
def test_finished_runs_are_left_and_all_are_compared(world, caplog):
    words = ["train.beta=0.05,0.1", "train.max_steps=3"]
    world.fail["out/beta-0.1"] = 1
    assert world.run(*words, "--num-processes", "1") == 1
    assert [folder for folder, _ in world.trained] == ["out/beta-0.05", "out/beta-0.1"]
    assert world.trained[0][1] == [
        "train", "dpo/tiny", "train.max_steps=3", "train.beta=0.05", "train.output_dir=out/beta-0.05",
        "--resume", "auto", "--num-processes=1",
    ]  # fmt: skip
    assert "not finished: out/beta-0.1; the same command tries them again" in caplog.text
    assert world.compared == []
    world.fail.clear()
    assert world.run(*words) == 0
    assert [folder for folder, _ in world.trained] == ["out/beta-0.1"]
    assert world.compared == [["out/beta-0.05", "out/beta-0.1", "-o", "out/compare.html"]]
    lines = [json.loads(line) for line in (world.path / "out/sweep.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["counts"].get("settings")) for line in lines] == [
        ("recipe", None), ("beta-0.05", ["train.beta=0.05"]), ("beta-0.1", ["train.beta=0.1"]),
    ]  # fmt: skip
    # what its recipe said is on record
    file = world.path / "out" / "recipe.resolved.yaml"
    file.write_text(file.read_text().replace("max_steps: 3", "max_steps: 7"))
    assert world.run(*words) == 0
    assert world.trained == []
    # a wider grid trains what is new, another recipe has no place there
    assert world.run("train.beta=0.05,0.1,0.2", "train.max_steps=3") == 0
    assert [folder for folder, _ in world.trained] == ["out/beta-0.2"]
    # one that fails keeps the others from no page
    world.fail["out/beta-0.3"] = 1
    assert world.run("train.beta=0.05,0.3,0.2", "train.max_steps=3") == 1
    assert world.compared == [["out/beta-0.05", "out/beta-0.2", "-o", "out/compare.html"]]
    assert world.run("train.beta=0.05,0.1", "train.max_steps=5") == 2
    assert world.trained == []


@pytest.mark.usefixtures("unchecked")
def test_a_run_of_another_setting_is_not_taken_for_one_of_its_name(world, capsys):
    assert world.run("train.seed=1,2") == 0
    assert world.run("eval.generate.seed=1,2") == 2
    assert (
        "out/seed-1: was trained with train.seed=1, and eval.generate.seed=1 would have the same"
        in capsys.readouterr().err
    )
    assert world.trained == []


@pytest.mark.usefixtures("unchecked")
def test_other_rows_are_another_sweep_and_other_questions_are_not(world, capsys):
    rows = world.path / "rows.jsonl"
    shutil.copyfile(recipes_dir() / "data" / "tiny.jsonl", rows)
    words = [f"data.train.path={rows}", "train.beta=0.1,0.2"]
    assert world.run(*words) == 0
    assert world.run(*words, "eval.generate.max_new_tokens=3") == 0
    assert world.trained == []
    assert world.compared[0][-1] == "eval.generate.max_new_tokens=3"
    rows.write_text(rows.read_text().partition("\n")[2])
    assert world.run(*words) == 2
    assert "rows of data.train: " in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
def test_a_run_whose_adapter_is_gone_is_gone_on_with(world):
    assert world.run("train.beta=0.1,0.2") == 0
    shutil.rmtree(world.path / "out" / "beta-0.1" / "adapter")
    assert world.run("train.beta=0.1,0.2") == 0
    assert [folder for folder, _ in world.trained] == ["out/beta-0.1"]


@pytest.mark.usefixtures("unchecked")
def test_that_no_page_can_be_made_is_said_before_training(world, caplog):
    assert world.run("train.seed=1,2", "eval.generate=null", recipe="online/tiny-grpo") == 0
    assert "no page will be made of these runs: seed-1: method 'dynamic_grpo' learns from prompts" in caplog.text
    caplog.clear()
    assert world.run("train.beta=0.1,0.2", recipe="dpo/tiny") == 2  # another recipe
    assert "no page" not in caplog.text


@pytest.mark.parametrize("text", ["0.1,0.10", "1,1.0", "[1, 2],[1,2]", "a,a"])
def test_equal_values_are_one_setting(text):
    with pytest.raises(RunError, match="is there twice"):
        read_space([f"train.beta={text}"], None)


def test_a_number_and_a_truth_value_are_two():
    assert len(read_space(["train.x=1,true,'1'"], None).values["train.x"]) == 3


@pytest.mark.usefixtures("unchecked")
def test_a_stop_ends_the_sweep_with_its_code(world, caplog):
    world.fail["out/beta-0.05"] = 130
    assert world.run("train.beta=0.05,0.1") == 130
    assert len(world.trained) == 1
    assert world.compared == []
    assert "stopped; the same command leaves finished runs and goes on" in caplog.text


def test_nothing_is_trained_if_check_refuses_a_setting(world, capsys):
    assert world.run("train.beta=0.1,-1,0.2", "train.max_length=64,9", "--seeds", "2") == 2
    said = capsys.readouterr().err
    assert said.count("train.beta=-1") == 2  # for each length, not for each seed
    assert "train.beta=0.1 train.max_length=9: error: " in said
    assert "train.max_length=64: error" not in said
    assert said.endswith("nothing was trained\n")
    assert world.trained == []
    assert not (world.path / "out" / "sweep.jsonl").exists()


def test_it_does_not_begin_where_it_cannot(world, capsys, monkeypatch):
    (world.path / "out").mkdir()
    (world.path / "out" / "mine.txt").touch()
    assert world.run("train.beta=0.1,0.2") == 2
    assert "holds no run of a recipe, but other files (mine.txt)" in capsys.readouterr().err
    assert cli.main(["sweep", "fronts/tiny", "train.seed=0,1", "-o", "other"]) == 2
    assert "fronts: several policies are trained by `alignkit front" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert world.run("train.beta=0.1,0.2") == 2
    assert "call it without a launcher" in capsys.readouterr().err


def test_signals_reach_the_training(tmp_path, monkeypatch):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"import os; open({str(tmp_path / 'group')!r}, 'w').write(str(os.getpgrp()))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "time.sleep(30)\n"
    )
    real = subprocess.Popen
    monkeypatch.setattr(
        trainings.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", program], **kw)
    )

    def stop():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop).start()
    with Trainings() as started:
        assert started.run(["train"], {}, None) == 143
        assert started.run(["train"], {}, None) == 143  # and no other begins
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "group").read_text() != str(os.getpgrp())  # of which Ctrl-C would come twice


def settings(**given):
    return Namespace(**{"jobs": 2, "num_processes": None, "accelerate_config": None} | given)


def test_each_of_several_runs_at_a_time_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7c,3")
    assert places_of(settings(), 3) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-7c"}]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert places_of(settings(), 2) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert places_of(settings(jobs=1), 2) == [{}]  # of which each may have all
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert places_of(settings(), 0) == [{"OMP_NUM_THREADS": "4"}] * 2
    for given, gpus, reason in (
        ({"jobs": 3}, 2, "a GPU of its own, and 2 are visible"),
        ({"num_processes": 2}, 4, "is one process"),
        ({"accelerate_config": "fsdp2"}, 4, "is one process"),
        ({"jobs": 0}, 2, "at least 1"),
    ):
        with pytest.raises(RunError, match=reason):
            places_of(settings(**given), gpus)


@pytest.mark.usefixtures("unchecked")
def test_several_runs_at_a_time_share_the_gpus(world, monkeypatch, caplog):
    """Of three runs on two GPUs, two meet, and the third takes the GPU that is free first."""
    two, begun = threading.Barrier(2, timeout=10), []
    monkeypatch.setattr(command, "_machine", lambda _: Machine(gpus=("A", "B", "C")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")

    def run(_, words, given, log):
        begun.append((given["CUDA_VISIBLE_DEVICES"], log.name))
        if len(begun) < 3:
            two.wait()
        folder = world.path / log.with_suffix("")
        folder.mkdir()
        (folder / "recipe.resolved.yaml").touch()
        return int("0.2" in log.name)

    monkeypatch.setattr(Trainings, "run", run)
    assert world.run("train.beta=0.1,0.2,0.3", "train.use_cpu=false", "--jobs", "2") == 1
    assert {place for place, _ in begun[:2]} == {"4", "6"}
    assert begun[2][0] in {"4", "6"}
    assert world.compared == [["out/beta-0.1", "out/beta-0.3", "-o", "out/compare.html"]]
    assert "out/beta-0.2: ended with exit code 1 (out/beta-0.2.log has what it said)" in caplog.text
    lines = [json.loads(line)["stage"] for line in (world.path / "out/sweep.jsonl").read_text().splitlines()]
    assert sorted(lines) == ["beta-0.1", "beta-0.3", "recipe"]


def test_what_a_run_beside_others_says_goes_to_its_log(tmp_path, monkeypatch):
    real = subprocess.Popen
    program = "import os, sys; print(os.environ['PLACE']); print('loss', file=sys.stderr)"
    monkeypatch.setattr(
        trainings.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", program], **kw)
    )
    with Trainings() as started:
        assert started.run(["train"], {"PLACE": "4"}, tmp_path / "a.log") == 0
    assert sorted((tmp_path / "a.log").read_text().split()) == ["4", "loss"]


@pytest.mark.slow
def test_a_sweep_trains_and_compares_with_one_reference_pass(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Trainings, "run", lambda _, words, given, log: train.main(words[1:]))
    words = ["train.beta=0.05,0.1", "train.max_steps=2", "train.precompute_ref_log_probs=true", "-o", "out"]
    assert cli.main(["sweep", "dpo/tiny", *words]) == 0
    said = [one for one in caplog.text.splitlines() if "reference log-probabilities of train" in one]
    assert len(said) == 2
    assert "0 of 10 rows were in the store, 10 computed" in said[0]
    assert "10 of 10 rows were in the store, 0 computed" in said[1]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "beta-0.05" in page
    assert "beta-0.1" in page
