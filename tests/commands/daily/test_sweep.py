"""`alignkit sweep`: settings of a grid, all checked before any is trained, gone on with, compared in the end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from align import cli, train
from align.commands import sweep
from align.commands.grid import planned
from align.commands.sweep import started
from align.errors import RunError
from align.recipe.loading import load_recipe


def names(*words, **kw):
    return [one.name for one in planned(words, **kw)[1]]


def test_the_grid_is_of_all_values_in_order():
    fixed, settings = planned(["train.beta=0.05,0.1", "train.max_steps=4", "train.learning_rate=1e-5,1e-4"], seeds=2)
    assert fixed == ["train.max_steps=4"]
    assert len(settings) == 8
    assert settings[1].name == "beta-0.05_learning_rate-1e-5_seed-1"
    assert settings[1].overrides == ("train.beta=0.05", "train.learning_rate=1e-5", "train.seed=1")
    assert names("b.x=1,2", "a.y=3,4") == names("a.y=3,4", "b.x=1,2")  # found again whatever the order


def test_values_are_yaml_between_commas():
    _, settings = planned(["data.train.path='a,b.jsonl',c.jsonl", "lora.target_modules=[q_proj, v_proj],[all]"])
    assert [one.overrides for one in settings] == [
        ("data.train.path='a,b.jsonl'", "lora.target_modules=[q_proj, v_proj]"),
        ("data.train.path='a,b.jsonl'", "lora.target_modules=[all]"),
        ("data.train.path=c.jsonl", "lora.target_modules=[q_proj, v_proj]"),
        ("data.train.path=c.jsonl", "lora.target_modules=[all]"),
    ]
    folders = [one.name for one in settings]
    assert len(set(folders)) == 4
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-") for name in folders)
    recipe = load_recipe("dpo/tiny", ["lora.target_modules=[q_proj, v_proj]"])
    assert recipe.lora.target_modules == {"q_proj", "v_proj"}
    # what a name cannot hold is told apart
    assert len(set(names("data.train.path=a/b,a-b,'a b'"))) == 3
    assert all(len(name) < 100 for name in names(f"data.train.path={'x' * 300},{'x' * 299}y"))


def test_some_settings_are_drawn_with_all_their_seeds():
    words = ["train.beta=0.1,0.2,0.3,0.4,0.5", "train.learning_rate=1,2"]
    drawn = names(*words, count=3, seeds=2)
    assert len(drawn) == 6
    assert len({name.rpartition("_seed-")[0] for name in drawn}) == 3
    assert drawn == names(*words, count=3, seeds=2, seed=0)
    assert drawn != names(*words, count=3, seeds=2, seed=1)
    assert set(names(*words, count=10)) == set(names(*words))


def test_ranges_are_drawn_from():
    words = [
        "train.beta=0.01:1:log",
        "train.learning_rate=1e-5:3e-5",
        "train.max_steps=2:4",
        "train.loss=a,b",
        "train.x=9",
    ]
    fixed, settings = planned(words, count=200)
    assert fixed == ["train.x=9"]
    drawn = [dict(word.split("=") for word in one.overrides) for one in settings]
    assert len({tuple(sorted(one.items())) for one in drawn}) == 200
    betas = [float(one["train.beta"]) for one in drawn]
    assert all(0.01 <= beta <= 1 for beta in betas)
    assert 80 < sum(beta < 0.1 for beta in betas) < 120  # half of the logarithm
    rates = [float(one["train.learning_rate"]) for one in drawn]
    assert all(1e-5 <= rate <= 3e-5 for rate in rates)
    assert 80 < sum(rate < 2e-5 for rate in rates) < 120
    assert {one["train.max_steps"] for one in drawn} == {"2", "3", "4"}
    assert {one["train.loss"] for one in drawn} == {"a", "b"}
    assert max(len(one["train.beta"]) for one in drawn) <= len("0.0123")
    # named after what was drawn, the same again, and a larger count goes on from a smaller one
    assert settings[0].name.startswith(f"beta-{drawn[0]['train.beta']}_learning_rate-")
    assert names(*words, count=3) == names(*words, count=5, seed=0)[:3]
    assert names(*words, count=3) != names(*words, count=3, seed=1)
    assert len(names("train.beta=0.1:0.2", count=2, seeds=3)) == 6
    assert {name.rpartition("-")[2] for name in names("train.max_steps=1:3:log", count=3)} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("words", "kw", "message"),
    [
        (
            ["train.beta=0.1:0.2"],
            {},
            "train.beta: is a range, from which settings are drawn; say how many with --random N",
        ),
        (["train.beta=0.1:0.2:lg"], {"count": 2}, "nothing varies"),
        (["train.beta=0.2:0.1"], {"count": 2}, "train.beta: expected a range from low to high"),
        (["train.beta=0:1:log"], {"count": 2}, "train.beta: expected a range from low to high, of positive values"),
        (["train.beta=1:inf"], {"count": 2}, "train.beta: expected a range from low to high"),
        (["train.beta=0.1:0.2", "train.beta=3"], {"count": 2}, "train.beta: is given twice"),
        (
            ["train.max_steps=1:2"],
            {"count": 3},
            "--random: must be at least 1, and 2 different settings were found, got 3",
        ),
        (["train.max_steps=1:2"], {"count": 0}, "--random: must be at least 1"),
        (["train.seed=1:2"], {"count": 1, "seeds": 2}, "--seeds: must be at least 1 and say the seeds alone"),
        (["train.beta"], {}, "train.beta: expected section.key=value,value"),
        (["train.beta=0.1"], {}, "nothing varies"),
        (["train.beta=0.1,0.2", "train.beta=3"], {}, "train.beta: is given twice"),
        (["train.beta=0.1,0.1"], {}, "train.beta: 0.1 is there twice"),
        (["train.beta=[0.1,0.2"], {}, "train.beta: expected YAML between commas"),
        (["train.beta=0.1],[0.2"], {}, "train.beta: expected YAML between commas"),
        (["train.beta=0.1,0.2] #"], {}, "train.beta: expected YAML between commas"),
        (["train.beta="], {}, "train.beta: expected YAML between commas"),
        (["train.output_dir=a,b"], {}, "train.output_dir: each run has one of its own"),
        (["train.seed=1,2"], {"seeds": 2}, "--seeds: must be at least 1 and say the seeds alone"),
        (["train.beta=1,2"], {"seeds": 0}, "--seeds: must be at least 1"),
        (["train.beta=1,2"], {"seed": 1}, "--seed: does nothing without --random"),
        (["train.beta=1,2"], {"count": 3}, "--random: there are 2 settings to draw from, got 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, kw, message):
    with pytest.raises(RunError, match=message.replace("[", r"\[")):
        planned(words, **kw)


@pytest.fixture
def unchecked(monkeypatch):
    """A check takes a second for each setting."""
    monkeypatch.setattr(sweep, "refuse_all", lambda *_: None)


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
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "recipe.resolved.yaml").touch()
        return code

    monkeypatch.setattr(sweep, "started", start)
    monkeypatch.setattr(cli, "_compare", lambda words: compared.append(words) or 0)

    def run(*words):
        trained.clear()
        compared.clear()
        return cli.main(["sweep", "dpo/tiny", *words, "-o", "out"])

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
    monkeypatch.setattr(sweep.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", program], **kw))

    def stop():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop).start()
    assert started(["train"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "group").read_text() != str(os.getpgrp())  # of which Ctrl-C would come twice


@pytest.mark.slow
def test_a_sweep_trains_and_compares_with_one_reference_pass(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "started", lambda words: train.main(words[1:]))
    words = ["train.beta=0.05,0.1", "train.max_steps=2", "train.precompute_ref_log_probs=true", "-o", "out"]
    assert cli.main(["sweep", "dpo/tiny", *words]) == 0
    said = [one for one in caplog.text.splitlines() if "reference log-probabilities of train" in one]
    assert len(said) == 2
    assert "0 of 10 pairs were in the store, 10 computed" in said[0]
    assert "10 of 10 pairs were in the store, 0 computed" in said[1]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "beta-0.05" in page
    assert "beta-0.1" in page
