"""Trackers get what `metrics.jsonl` gets, each record once, also after a kill, and nothing of this machine."""

import json
import os
import shutil
import socket
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import align
from align import building
from align.check import environment
from align.commands.check import main as check
from align.errors import RunError
from align.runs.contents import RECIPE_FILE, written_by_run
from align.runs.directory import read_metrics
from align.runs.trackers import name_of

QUIET = ["data.eval={}", "train.disable_tqdm=true"]
SUMMARY = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")


def module(name, **contents):
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(contents)
    return made


class Config(dict):
    def update(self, values, allow_val_change):
        super().update(values)


@pytest.fixture
def trackio(monkeypatch):
    """A stand-in that keeps what it is told: `runs` by their names, each with how often it was begun."""
    runs, config = {}, Config()
    kept = SimpleNamespace(runs=runs, config=config, now=None)

    def init(project, name, resume, **uploads):
        assert resume == "allow"
        assert not any(uploads.values())
        kept.now = runs.setdefault(name, {"begun": 0, "ended": 0, "logs": []})
        kept.now["begun"] += 1

    def finish():
        kept.now["ended"] += 1

    nowhere = SimpleNamespace(get=lambda: None)
    made = module(
        "trackio", init=init, log=lambda record: kept.now["logs"].append(record), finish=finish, config=config,
        context_vars=SimpleNamespace(current_space_id=nowhere, current_project=nowhere, current_run=nowhere),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "trackio", made)
    return kept


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in with the ids of the runs that were begun, whose run stays open until it is finished."""

    def init(project, name):
        made.begun.append((os.environ["WANDB_RUN_ID"], os.environ["WANDB_RESUME"]))
        made.run = SimpleNamespace(summary={}, url=None, _label=lambda code: None)

    def finish():
        made.run = None

    made = module("wandb", init=init, finish=finish, begun=[], run=None, config=Config(), log=lambda record: None)
    monkeypatch.setitem(sys.modules, "wandb", made)
    monkeypatch.setattr("trl.trainer.base_trainer.wandb", made, raising=False)
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", module("config_util", ConfigError=KeyError))
    return made


@pytest.fixture
def writers(monkeypatch):
    """Stand-ins of tensorboard's writers, in the order in which they were opened."""
    opened = []

    class Writer:
        def __init__(self, log_dir, purge_step):
            self.log_dir, self.purge_step, self.scalars, self.closed = log_dir, purge_step, [], False
            opened.append(self)

        def add_scalar(self, tag, value, step):
            self.scalars.append((step, tag, value))

        def flush(self):
            pass

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "tensorboard", module("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module("torch.utils.tensorboard", SummaryWriter=Writer))
    return opened


def told(run, *, first=1, without=()):
    """What a tracker should hold: step, tag and value of the records from a step on."""
    return [
        (record["step"], f"train/{name}", value)
        for record in read_metrics(run / "metrics.jsonl")
        for name, value in record.items()
        if name not in ("step", *without) and record["step"] >= first
    ]


def train(run, *words, **kw):
    return align.run("dpo/tiny", [f"train.output_dir={run}", *QUIET, *words], **kw)


def test_a_run_that_goes_on_is_one_run_there_and_no_step_is_told_twice(tmp_path, trackio, writers):
    run = tmp_path / "mine"
    words = ["train.report_to=[tensorboard, trackio]", "train.max_steps=4", "train.save_steps=2"]
    words += ["lora.target_modules='.*(q_proj|/home/me)'"]
    train(run, *words)
    # killed after step 4, before its end was told
    for left in ("adapter", "checkpoint-4"):
        shutil.rmtree(run / left)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    trackio.now["logs"].pop()
    train(run, *words, resume="auto")  # from step 2
    identity = json.loads((run / "env.json").read_text())["run"]

    (name,) = trackio.runs
    assert name == f"mine-{identity[-8:]}"
    assert (trackio.runs[name]["begun"], trackio.runs[name]["ended"]) == (2, 2)
    logs = trackio.runs[name]["logs"]
    assert [log["train/global_step"] for log in logs] == [1, 2, 3, 4, 4]  # each once, and the summary
    flat = [(log["train/global_step"], tag, v) for log in logs for tag, v in log.items() if tag != "train/global_step"]
    # time stands in the records too, and the resumed run's is another
    assert set(flat) == set(told(run, without=SUMMARY))
    assert trackio.config["run"] == identity
    assert (trackio.config["method"], trackio.config["train.beta"], trackio.config["lora.r"]) == ("dpo", 0.1, 4)
    assert trackio.config["model"] == "tiny-random"
    assert "lora.target_modules" not in trackio.config
    said = json.dumps(trackio.config)
    assert "/" not in said
    assert socket.gethostname() not in said

    first, second = writers
    assert first.log_dir == second.log_dir == str(run / "tensorboard")
    assert (first.purge_step, second.purge_step) == (0, 3)  # what was said from there on is hidden
    assert {step for step, *_ in first.scalars} == {1, 2, 3, 4}
    assert second.scalars == told(run, first=3)
    assert first.closed
    assert second.closed
    # nothing is left to tell of a run that is finished, but for its adapter
    shutil.rmtree(run / "adapter")
    train(run, *words, resume="auto")
    assert (run / "adapter").is_dir()
    assert len(writers) == 2
    assert trackio.runs[name]["begun"] == 2


def test_a_round_is_named_after_all_rounds_and_itself():
    assert name_of(Path("/home/me/runs/mine")) == "mine"
    assert name_of(Path("/home/me/runs/mine/round-2/train")) == "mine-round-2"


def test_runs_of_one_process_are_several_at_wandb(tmp_path, wandb):
    words = ["train.report_to=wandb", "train.max_steps=1"]
    for name in "ab":
        train(tmp_path / name, *words)
    ids = [json.loads((tmp_path / name / "env.json").read_text())["run"] for name in "ab"]
    assert wandb.begun == [(each, "allow") for each in ids]
    assert wandb.run is None
    assert "WANDB_RUN_ID" not in os.environ
    # one that was open already is whoever opened it's to end
    wandb.run = mine = SimpleNamespace(summary={}, url=None, _label=lambda code: None)
    train(tmp_path / "c", *words)
    assert len(wandb.begun) == 2
    assert wandb.run is mine


def test_one_that_cannot_begin_ends_the_run_and_one_that_fails_later_does_not(tmp_path, trackio, monkeypatch, caplog):
    def broken(*_, **__):
        raise OSError("no space\nleft")

    words = ["train.report_to=trackio", "train.max_steps=3"]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["trackio"], "init", broken)
        with pytest.raises(
            RunError, match=r"train.report_to: trackio cannot begin: no space; set it up, or leave it out"
        ):
            train(tmp_path / "first", *words)
    monkeypatch.setattr(sys.modules["trackio"], "log", broken)
    train(tmp_path / "second", *words)
    assert caplog.text.count("trackio failed at step 1, and the run goes on without it: no space") == 1
    assert "failed at step 2" not in caplog.text
    assert [record["step"] for record in read_metrics(tmp_path / "second" / "metrics.jsonl")] == [1, 2, 3, 3]


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb", "mlflow"])
def test_one_that_is_not_installed_is_refused_before_weights_are_loaded(tmp_path, name, monkeypatch, capsys):
    monkeypatch.setattr(environment, "get_available_reporting_integrations", list)
    monkeypatch.setattr(building.models, "load_model", lambda *_, **__: pytest.fail("weights are loaded"))
    line = (
        f"train.report_to: report-to: '{name}' is not installed: pip install {name}; or use train.report_to=none: "
        "metrics.jsonl is written anyway"
    )
    with pytest.raises(RunError, match=line):
        train(tmp_path / "run", f"train.report_to={name}")
    assert check(["dpo/tiny", f"train.report_to={name}"]) == 1
    assert line in capsys.readouterr().out


def test_tensorboardx_does_not_stand_in(tmp_path, monkeypatch):
    """transformers takes it for tensorboard; what writes here is PyTorch's own writer."""
    monkeypatch.setattr(environment, "get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setattr(environment.Machine, "here", classmethod(lambda cls, *_: cls(installed=lambda name: False)))
    with pytest.raises(RunError, match="'tensorboard' is not installed"):
        train(tmp_path / "run", "train.report_to=tensorboard")


def test_overwriting_a_run_deletes_its_event_files(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / RECIPE_FILE).touch()
    assert [path.name for path in written_by_run(tmp_path)] == ["tensorboard", RECIPE_FILE]


def test_real_event_files_hold_each_step_once(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    run = tmp_path / "run"
    words = ["train.report_to=tensorboard", "train.max_steps=4", "train.save_steps=2"]
    train(run, *words)
    for left in ("adapter", "checkpoint-4"):
        shutil.rmtree(run / left)
    train(run, *words, resume="auto")
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    losses = {record["step"]: record["loss"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record}
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4]
    assert {e.step: e.value for e in found.Scalars("train/loss")} == pytest.approx(losses, rel=1e-6)
    assert found.Tags()["tensors"] == []  # no arguments, no configuration
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (run / "tensorboard").iterdir())
