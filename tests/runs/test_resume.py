"""Killed with SIGKILL in the middle, resumed with `--resume auto`: the same numbers to the bit, on CPU."""

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from launching import OVERRIDES, commands, records
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

import align
from align.errors import RunError
from align.runs.checkpoints import newest_checkpoint
from align.runs.directory import METRICS_FILE, read_metrics


def trained(run: Path, *more: str):
    code, said, *_ = commands().run("train", "rpo/tiny", *OVERRIDES, f"train.output_dir={run}", *more)
    assert code == 0, said[-3000:]


def train_and_kill(run: Path, at_step: int):
    process = commands().start("train", "rpo/tiny", *OVERRIDES, f"train.output_dir={run}")
    deadline, code = time.monotonic() + 600, None
    while code is None and time.monotonic() < deadline:
        seen = read_metrics(run / METRICS_FILE)
        if seen and seen[-1]["step"] >= at_step:
            with contextlib.suppress(ProcessLookupError):  # dead already, and not yet told
                os.kill(process, signal.SIGKILL)
        code = commands().ended(0.002)
    assert code == -signal.SIGKILL, "the run ended before it was killed"


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trained(whole)
    train_and_kill(killed, at_step=20)
    assert newest_checkpoint(killed) is not None
    last = records(killed)[-1]["step"]
    assert last < 60
    trained(killed, "--resume", "auto")
    assert records(killed) == records(whole)
    assert len({r["step"] for r in records(killed)}) == 30
    ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (killed, whole))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    align.run("rpo/tiny", [f"train.output_dir={run}"])
    return run


def test_an_incomplete_checkpoint_is_passed_over(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert newest_checkpoint(run).name == "checkpoint-4"
    (run / "checkpoint-4" / "trainer_state.json").write_text('{"global_step"')
    assert newest_checkpoint(run).name == "checkpoint-2"
    (run / "checkpoint-2" / "scheduler.pt").unlink()
    assert newest_checkpoint(run) is None


def test_a_run_is_not_overwritten_by_accident(finished):
    with pytest.raises(
        RunError, match="already holds a run; continue it with --resume auto, replace it with --overwrite"
    ):
        align.run("rpo/tiny", [f"train.output_dir={finished}"])


def test_overwrite_replaces_a_run(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "report.json").write_text("{}")
    (run / "thesis.tex").write_text("mine")
    before = json.loads((run / "env.json").read_text())["run"]
    align.run("rpo/tiny", [f"train.output_dir={run}", "train.max_steps=1"], overwrite=True)
    assert (run / "thesis.tex").read_text() == "mine"
    assert not (run / "report.json").exists()
    assert [p.name for p in run.glob("checkpoint-*")] == ["checkpoint-1"]
    assert records(run)[-1]["step"] == 1
    assert json.loads((run / "env.json").read_text())["run"] != before


def test_a_named_checkpoint_must_be_complete(finished, tmp_path):
    with pytest.raises(RunError, match="was not written to its end"):
        align.run("rpo/tiny", [f"train.output_dir={finished}"], resume=str(tmp_path / "checkpoint-3"))


def test_resuming_against_another_reference_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    env = json.loads((run / "env.json").read_text())
    env["ref"]["digest"] = "0" * 64
    (run / "env.json").write_text(json.dumps(env))
    with pytest.raises(RunError, match="started with another reference"):
        align.run("rpo/tiny", [f"train.output_dir={run}", "train.max_steps=6"], resume="auto")


def test_what_a_run_leaves_behind(finished):
    env = json.loads((finished / "env.json").read_text())
    assert {"versions", "ref", "data", "device", "processes"} <= set(env)
    assert env["ref"]["kind"] == "base"
    assert set(env["data"]) == {"train", "tiny"}
    assert len(env["data"]["train"]["sha256"]) == 64
    card = (finished / "README.md").read_text()
    for part in ("arxiv.org/abs/2405.16436", "## Recipe", "## Data", "## Results", "eta: 0.005"):
        assert part in card
    assert not (finished / "adapter" / "ref").exists()


def test_the_adapter_loads_with_peft_alone(finished):
    model = AutoPeftModelForCausalLM.from_pretrained(finished / "adapter")
    assert any("lora_" in name for name, _ in model.named_parameters())


def test_the_resolved_recipe_replays_the_run(finished, tmp_path):
    again = tmp_path / "again"
    align.run(finished / "recipe.resolved.yaml", [f"train.output_dir={again}"])
    assert records(again) == records(finished)
