"""Runs that end early, by a signal or between two generations, and go on as if they had not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from groups import group_trainer
from launching import OVERRIDES, records
from safetensors.torch import load_file
from tiny import sparing

import align
from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.errors import RunError
from align.runs.checkpoints import check, newest_checkpoint
from align.runs.directory import METRICS_FILE, read_metrics
from align.train import main
from align.trainers.shared.safe_runs import StopOnSignal

NOT_THE_SAME = ("runtime", "per_second", "step_time", "flos", "train_loss")


def logged(trainer):
    return [
        {k: v for k, v in r.items() if not any(part in k for part in NOT_THE_SAME)} for r in trainer.state.log_history
    ]


@pytest.mark.parametrize(("cls", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
@pytest.mark.parametrize("at", sparing([1, 3, 6, 8, 11], 3))
def test_group_trainers_resume_to_the_bit_between_generations(tmp_path, cls, config, at):
    """Completions are sampled every fourth micro-batch, learnt from twice, in two parts: every save is elsewhere in that.

    An epoch has eight steps, and the prompts of each come in another order.
    """
    settings = {
        "max_steps": 14, "save_strategy": "steps", "save_steps": 1, "steps_per_generation": 2, "logging_steps": 2,
        "per_device_train_batch_size": 4,
    }  # fmt: skip
    whole = group_trainer(cls, config, tmp_path, **settings)
    whole.train()
    again = group_trainer(cls, config, tmp_path / "again", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
    theirs, ours = tiny.weights(whole), tiny.weights(again)
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert logged(again)[: len(logged(whole))] == logged(whole)


def start(run, *more):
    command = [sys.executable, "-m", "align.train", "rpo/tiny", *OVERRIDES, f"train.output_dir={run}", *more]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until_step(process, run, step):
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        seen = read_metrics(run / METRICS_FILE)
        if seen and seen[-1]["step"] >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run did not get to step {step}: {process.stderr.read()[-2000:]}")


def test_sigterm_saves_then_exits_with_143(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = start(stopped)
    until_step(process, stopped, 20)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "stopped by SIGTERM after step" in said
    last = newest_checkpoint(stopped)
    step = check(last)["step"]
    assert step >= 20
    assert step == max(r["step"] for r in records(stopped))
    assert not (stopped / "adapter").exists()
    align.run("rpo/tiny", [*OVERRIDES, f"train.output_dir={stopped}"], resume="auto")
    align.run("rpo/tiny", [*OVERRIDES, f"train.output_dir={whole}"])
    assert records(stopped) == records(whole)
    ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (stopped, whole))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.mark.slow
def test_ctrl_c_saves_then_exits_with_130(tmp_path):
    process = start(tmp_path / "stopped")
    until_step(process, tmp_path / "stopped", 4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    step = check(newest_checkpoint(tmp_path / "stopped"))["step"]
    assert said.splitlines()[-1] == f"stopped by SIGINT after step {step}, which is saved; go on with --resume auto"
    assert "Traceback" not in said


def test_ctrl_c_before_the_first_step_is_told_in_a_line(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("align.train.load_data", interrupted)
    assert main(["rpo/tiny", f"train.output_dir={tmp_path / 'run'}"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("stopped by SIGINT; go on with --resume auto, or begin")


def interrupted():
    """Whether SIGINT ends this process; caught, for pytest would end with it."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize(("processes", "at_once"), [("2", True), ("1", False)])
def test_a_signal_that_a_launcher_passes_on_counts_once(monkeypatch, processes, at_once):
    monkeypatch.setenv("WORLD_SIZE", processes)
    with StopOnSignal() as stop:
        assert not interrupted()
        assert stop.asked == signal.SIGINT
        assert interrupted() is not at_once
        if at_once:
            stop.AT_ONCE = 0.0
            assert interrupted()


def test_the_signals_are_given_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    align.run("rpo/tiny", [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_reference_travels_with_checkpoints_and_adapters(tmp_path):
    run = tmp_path / "run"
    align.run("rpo/tiny", [f"train.output_dir={run}"])
    recorded = json.loads((run / "env.json").read_text())["ref"]
    assert json.loads((run / "adapter" / "reference.json").read_text()) == recorded
    assert check(run / "checkpoint-4")["reference"] == recorded
    (run / "env.json").unlink()  # a checkpoint that was copied alone still knows
    manifest = run / "checkpoint-4" / "alignkit.json"
    manifest.write_text(manifest.read_text().replace(recorded["digest"], "0" * 64))
    with pytest.raises(RunError, match="started with another reference"):
        align.run("rpo/tiny", [f"train.output_dir={run}", "train.max_steps=6"], resume="auto")


def test_going_on_from_an_adapter_says_what_the_reference_is(tmp_path, caplog):
    run = tmp_path / "run"
    align.run("rpo/tiny", [f"train.output_dir={run}"])
    align.run(
        "rpo/tiny",
        [f"train.output_dir={tmp_path / 'next'}", f"ref={{kind: adapter, path: {run / 'adapter'}}}", "lora=null"],
    )
    assert any("the reference is that adapter as it is now" in message for message in caplog.messages)
