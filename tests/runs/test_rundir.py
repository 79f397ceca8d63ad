"""A run directory belongs to one run at a time."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

import align
from align import train
from align.errors import RunError
from align.runs.contents import RECIPE_FILE, delete_run, written_by_run
from align.runs.directory import claimed

CLAIM = """
import os, sys, time
from pathlib import Path
from align.runs.directory import claimed
with claimed(Path(sys.argv[1]), resume=True, overwrite=False):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint."""
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / RECIPE_FILE).touch()
    return tmp_path / "run"


def claim(path, *, resume=False, overwrite=False):
    with claimed(path, resume=resume, overwrite=overwrite):
        return sorted(child.name for child in path.iterdir())


def test_a_run_that_is_being_written_is_left_alone_until_its_process_ends(run):
    with subprocess.Popen([sys.executable, "-c", CLAIM, str(run)], stdout=subprocess.PIPE, text=True) as other:
        try:
            worker = int(other.stdout.readline())
            for how in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(RunError, match=f"process {other.pid} on .* is writing this run; wait for its end"):
                    claim(run, **how)
            assert (run / "checkpoint-2").is_dir()
            other.kill()
            other.wait()
            assert claim(run, resume=True) == [".lock", "checkpoint-2", RECIPE_FILE]  # though its worker lives
            os.kill(worker, signal.SIGKILL)
        finally:
            other.kill()


def test_what_is_refused_before_it_wrote_leaves_no_folder(tmp_path):
    new, old = tmp_path / "a" / "b" / "run", tmp_path / "old"
    old.mkdir()

    def refused(path, writes):
        def begin():
            with claimed(path, resume=False, overwrite=False):
                (path / "notes").touch() if writes else None
                raise RunError("refused")

        with pytest.raises(RunError, match="refused"):
            begin()

    refused(new, writes=False)
    assert not (tmp_path / "a").exists()
    refused(old, writes=False)
    assert old.is_dir()  # was there before
    refused(new, writes=True)
    assert sorted(child.name for child in new.iterdir()) == [".lock", "notes"]


def test_a_file_system_without_locks_is_told_and_used(run, monkeypatch, caplog):
    def none(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    assert claim(run, resume=True) == [".lock", "checkpoint-2", RECIPE_FILE]
    assert "the file system has no locks (No locks available); nothing keeps another run out" in caplog.text


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "env.json", RECIPE_FILE])
def test_a_run_writes_through_no_link_and_into_no_pipe(run, tmp_path, name):
    (tmp_path / "thesis.tex").write_text("mine")
    run.mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    for make in (lambda path: path.symlink_to(tmp_path / "thesis.tex"), os.mkfifo, os.mkdir):
        make(run / name)
        with (
            pytest.raises(RunError, match=f"{name}: no file of the run's own"),
            claimed(run, resume=True, overwrite=False),
        ):
            pass
        (run / name).rmdir() if (run / name).is_dir() else (run / name).unlink()
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_what_is_there_is_deleted_only_when_asked(run):
    with pytest.raises(RunError, match="already holds a run; continue it with --resume auto, replace it"):
        claim(run)
    with pytest.raises(RunError, match="--resume and --overwrite contradict each other"):
        claim(run, resume=True, overwrite=True)
    (run / "elsewhere").symlink_to(run.parent, target_is_directory=True)
    (run / "adapter").symlink_to(run.parent, target_is_directory=True)
    (run / "thesis.tex").touch()
    assert claim(run, overwrite=True) == [".lock", "adapter", "checkpoint-2", "elsewhere", RECIPE_FILE, "thesis.tex"]
    assert [path.name for path in written_by_run(run)] == ["adapter", "checkpoint-2", RECIPE_FILE]  # the recipe last
    delete_run(run)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "elsewhere", "thesis.tex"]
    assert run.parent.is_dir()
    with pytest.raises(
        RunError, match=r"holds no run of a recipe, but other files \(elsewhere, thesis.tex\); a run needs"
    ):
        claim(run)


def test_what_killed_processes_left_is_deleted_and_nothing_else(run, caplog):
    gone = subprocess.Popen(["true"])
    gone.wait()
    (run / "adapter").mkdir()
    (run / ".writing-adapter").mkdir()
    left = [f".report.html.{gone.pid}", f"adapter/.reference.json.{gone.pid}"]
    stays = [f".report.html.{os.getpid()}", f".mine.{gone.pid}", ".gitignore"]
    for name in (*left, *stays):
        (run / name).touch()
    claim(run, resume=True)
    assert not (run / ".writing-adapter").exists()
    assert not any((run / name).exists() for name in left)
    assert all((run / name).exists() for name in stays)
    assert f"{run / left[0]}: deleted" in caplog.text


@pytest.mark.slow
def test_a_run_claims_its_directory_while_it_lasts(tmp_path, monkeypatch):
    def within(recipe, path, start, allow, **_):
        other = [sys.executable, "-c", CLAIM, str(path)]
        return subprocess.run(other, capture_output=True, text=True, check=False).stderr

    monkeypatch.setattr(train, "_run", within)
    assert f"process {os.getpid()} on" in align.run("rpo/tiny", [f"train.output_dir={tmp_path}"])


def test_a_run_killed_between_its_record_and_its_recipe_begins_again(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "env.json").write_text('{"identity": {}}', encoding="utf-8")
    assert claim(run) == [".lock"]
    (run / "env.json").write_text('{"of": "somebody else"}', encoding="utf-8")
    with pytest.raises(RunError, match=r"holds no run of a recipe, but other files \(env.json\)"):
        claim(run)


def test_completions_that_training_logs_lie_in_the_run(tmp_path):
    run = tmp_path / "run"
    words = ["train.log_completions=true", "train.max_steps=2", "train.save_strategy='no'", f"train.output_dir={run}"]
    for overwrite in (False, True):
        align.run("online/tiny-grpo", words, overwrite=overwrite)
        assert sorted(path.name for path in (run / "completions").iterdir()) == [
            "completions_00001.parquet", "completions_00002.parquet",
        ]  # fmt: skip
