"""A checkpoint is whole or passed over, and the last good one is never lost."""

import json
import os
import resource
import shutil
import time
from importlib.util import find_spec

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from align import DPOConfig, DPOTrainer
from align.errors import RunError
from align.runs.checkpoints import (
    MANIFEST,
    check,
    checkpoint_to_resume,
    manifest,
    newest_checkpoint,
    refuse_without_optimizer,
    seal,
)
from align.runs.identity import Identity

FILES = ("adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "tokenizer.json")  # fmt: skip


def trainer(folder, **kw):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "save_total_limit": 2}
    return tiny.trainer(DPOTrainer, DPOConfig, folder, **settings | kw)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("checkpoints") / "run"
    trainer(run).train()
    return run


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_lists_all_its_files(finished):
    found = check(finished / "checkpoint-6")
    assert set(FILES) <= set(found["files"])
    assert (found["step"], found["processes"], found["reference"]) == (6, 1, None)
    assert sorted(p.name for p in finished.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "is damaged: its sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, .* were written"),
        (lambda path: path.unlink(), "is missing"),
    ],
    ids=["flipped", "cut", "missing"],
)
def test_a_damaged_file_makes_the_one_before_the_newest(run, caplog, name, damage, said):
    damage(run / "checkpoint-6" / name)
    assert newest_checkpoint(run) == run / "checkpoint-4"
    (told,) = caplog.messages
    assert f"passed over: {run / 'checkpoint-6'}: {name}" in told
    with pytest.raises(RunError, match=said):
        check(run / "checkpoint-6")
    with pytest.raises(RunError, match="`--resume auto` takes the last intact one"):
        checkpoint_to_resume(run, str(run / "checkpoint-6"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"step": 6}', '{"step": 6, "processes": 1, "reference": null, "files": {"a": 3}}']
)
def test_a_damaged_manifest_is_no_manifest(run, text):
    (run / "checkpoint-6" / MANIFEST).write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        manifest(run / "checkpoint-6")
    (run / "checkpoint-6" / MANIFEST).unlink()
    with pytest.raises(RunError, match="not written to its end"):
        check(run / "checkpoint-6")
    assert newest_checkpoint(run) == run / "checkpoint-4"


def test_a_manifest_does_not_lead_out_of_its_folder(run):
    path = run / "checkpoint-6" / MANIFEST
    found = json.loads(path.read_text())
    found["files"]["../checkpoint-4/optimizer.pt"] = found["files"]["optimizer.pt"]
    path.write_text(json.dumps(found))
    with pytest.raises(RunError, match="lies outside"):
        check(run / "checkpoint-6")


class Touch:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "generation_0.pt", "adapter_model.bin"]
)
def test_a_pickle_that_would_run_code_is_not_run(run, tmp_path, name):
    folder = run / "checkpoint-6"
    torch.save(Touch(tmp_path / "owned"), folder / name)
    found = json.loads((folder / MANIFEST).read_text())
    found["files"].pop(name, None)  # a stranger's manifest agrees with a stranger's files
    (folder / MANIFEST).write_text(json.dumps(found))
    with pytest.raises(RunError, match=f"{name} holds more than tensors and numbers"):
        trainer(run).train(resume_from_checkpoint=str(folder))
    assert not (tmp_path / "owned").exists()


class Stage:
    """As the settings are that DeepSpeed pickles."""


def of_deepspeed(run, value):
    folder = run / "checkpoint-2"
    (folder / "global_step2").mkdir(parents=True, exist_ok=True)
    torch.save({"stage": value}, folder / "global_step2" / "mp_rank_00_model_states.pt")
    seal(folder, step=2, processes=2, identity=Identity(run="a"))
    return folder


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_a_checkpoint_of_deepspeed_needs_it(tmp_path):
    folder = of_deepspeed(tmp_path, Touch(tmp_path / "owned"))
    for resume in ("auto", str(folder)):
        with pytest.raises(RunError, match=r"states.pt was written by DeepSpeed, which is not installed: pip install"):
            checkpoint_to_resume(tmp_path, resume, "a")
    assert not (tmp_path / "owned").exists()


def test_of_what_deepspeed_pickles_nothing_but_its_settings_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("align.runs.checkpoints._deepspeeds", lambda: [Stage])
    folder = of_deepspeed(tmp_path, Stage())
    assert checkpoint_to_resume(tmp_path, "auto", "a") == folder
    of_deepspeed(tmp_path, Touch(tmp_path / "owned"))
    with pytest.raises(RunError, match="holds more than tensors and numbers; reading it could run code"):
        checkpoint_to_resume(tmp_path, "auto", "a")
    assert not (tmp_path / "owned").exists()
    torch.save({"stage": Stage()}, folder / "optimizer.pt")  # not a file of DeepSpeed's
    seal(folder, step=2, processes=2, identity=Identity(run="a"))
    with pytest.raises(RunError, match="optimizer.pt holds more than tensors"):
        checkpoint_to_resume(tmp_path, str(folder), "a")


def test_a_checkpoint_of_deepspeed_has_its_optimizer_elsewhere(tmp_path):
    folder = of_deepspeed(tmp_path, 0)
    with pytest.raises(RunError, match="holds no state of the optimizer"):
        refuse_without_optimizer(folder)
    (folder / "global_step2" / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    refuse_without_optimizer(folder)


def test_true_resumes_from_the_last_intact_one(run, tmp_path, finished):
    flip(run / "checkpoint-6" / "optimizer.pt")
    again = trainer(run)
    again.train(resume_from_checkpoint=True)
    ours, theirs = (load_file(f / "checkpoint-6" / "adapter_model.safetensors") for f in (run, finished))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert check(run / "checkpoint-6")
    with pytest.raises(RunError, match="no intact checkpoint"):
        trainer(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_a_clock_that_was_set_back_does_not_delete_the_newest(tmp_path):
    run = trainer(tmp_path, save_total_limit=1)

    class SetBack(TrainerCallback):
        def on_save(self, args, state, control, **_):
            future = time.time() + 1e6
            os.utime(tmp_path / f"checkpoint-{state.global_step}", (future, future))

    run.add_callback(SetBack())
    run.train()
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]
    assert check(tmp_path / "checkpoint-6")


class FullAfter(TrainerCallback):
    """From the given step on, no file can be longer than a few bytes."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def room_again():
    yield
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.usefixtures("room_again")
def test_a_full_disk_is_told_and_the_older_checkpoint_stays(tmp_path, finished):
    run = trainer(tmp_path / "run", save_total_limit=1)
    run.add_callback(FullAfter(3))
    with pytest.raises(RunError, match="checkpoint-4 could not be written: .*older checkpoints are as they were"):
        run.train()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [p.name for p in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert run.args.save_total_limit == 1
    again = trainer(tmp_path / "run", save_total_limit=1)
    again.train(resume_from_checkpoint=True)
    ours, theirs = (load_file(f / "checkpoint-6" / "adapter_model.safetensors") for f in (tmp_path / "run", finished))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_folder_where_nothing_can_be_written_is_told(tmp_path):
    (tmp_path / "checkpoint-2").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="checkpoint-2 could not be written"):
        trainer(tmp_path).train()


def test_another_number_of_processes_is_said(run, caplog):
    path = run / "checkpoint-4" / MANIFEST
    found = json.loads(path.read_text())
    found["processes"] = 2
    path.write_text(json.dumps(found))
    trainer(run).train(resume_from_checkpoint=str(run / "checkpoint-4"))
    assert any("was written by 2 processes and is resumed by 1" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "change",
    [{"step": -3}, {"files": {}}, {"processes": 0}, {"ends_at": 1}, {"step": 4, "ends_at": None}],
    ids=lambda change: "-".join(change),
)
def test_a_manifest_that_no_run_writes_is_damaged(run, change):
    path = run / "checkpoint-6" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match="is damaged"):
        check(run / "checkpoint-6")
    assert newest_checkpoint(run) == run / "checkpoint-4"


def test_weights_that_a_manifest_does_not_list_are_not_loaded(run):
    path = run / "checkpoint-6" / MANIFEST
    listed = json.loads(path.read_text())
    del listed["files"]["adapter_model.safetensors"]
    path.write_text(json.dumps(listed))
    with pytest.raises(RunError, match=r"adapter_model\.safetensors is not in alignkit\.json"):
        check(run / "checkpoint-6")
