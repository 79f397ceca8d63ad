"""A directory and its run are one thing: what would go on with other numbers is named, and needs to be asked for."""

import json
import pickle
import shutil

import pytest
from launching import ROOT

import align
from align import train
from align.errors import RunError
from align.runs.checkpoints import MANIFEST, manifest
from align.runs.directory import read_metrics

SETTINGS = ("train.lr_scheduler_type=constant", "train.max_steps=6", "train.save_steps=2")  # ends within an epoch


def start(run, *more, recipe="dpo/tiny", **kw):
    return align.run(recipe, [*SETTINGS, *more, f"train.output_dir={run}"], **kw)


def bits(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}


def env(run):
    return json.loads((run / "env.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    start(run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_one_id_stands_everywhere(finished):
    own = env(finished)["run"]
    for folder in (*finished.glob("checkpoint-*"), finished / "adapter"):
        found = manifest(folder)
        assert found["identity"].run == own
        assert found["identity"].recipe == env(finished)["identity"]["recipe"]
        assert found["identity"].data == env(finished)["data"]["train"]
        assert found["identity"].reference == env(finished)["ref"]
        assert found["identity"].weights == env(finished)["ref"]["digest"]
    assert (found["step"], found["ends_at"]) == (6, 6)


def test_a_finished_run_is_left_as_it_is(run, caplog, capsys):
    before = bits(run)
    words = ["dpo/tiny", *SETTINGS, "train.save_steps=3", "train.logging_steps=2", f"train.output_dir={run}"]
    assert train.main([*words, "--resume", "auto"]) == 0
    assert f"{run}: finished at step 6, nothing to do" in caplog.text
    assert bits(run) == before
    assert capsys.readouterr().out.startswith(f"run: {run}\n  alignkit eval {run}")


@pytest.mark.parametrize("killed", ["before the adapter", "in the adapter"])
def test_the_adapter_is_written_again_from_the_last_checkpoint(run, killed):
    before = bits(run)
    shutil.rmtree(run / "adapter")
    if killed == "in the adapter":
        (run / "adapter").mkdir()
        (run / "adapter" / "README.md").touch()
    again = start(run, resume="auto")
    after = bits(run)
    names = {"adapter/adapter_model.safetensors", "checkpoint-6/adapter_model.safetensors", "env.json"}
    assert {name: after[name] for name in names - {"env.json"}} == {name: before[name] for name in names - {"env.json"}}
    assert after["metrics.jsonl"] == before["metrics.jsonl"]
    assert again.trainer.state.global_step == 6


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["train.beta=0.7"], "train.beta: 0.1 -> 0.7"),
        (["train.seed=8"], "train.seed: 0 -> 8"),
        (["lora.lora_alpha=99"], "lora.lora_alpha: 8 -> 99"),
        (["train.max_steps=4"], "train.max_steps: 6 -> 4"),
        (["model.dtype=bfloat16"], "model.dtype: float32 -> bfloat16"),
    ],
)
def test_other_settings_are_named_before_weights_are_loaded(run, monkeypatch, more, said):
    before = bits(run)
    monkeypatch.setattr(train, "build_trainer", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(RunError, match="what determines the numbers is not what it was") as error:
        start(run, *more, resume="auto")
    assert f"\n  {said}\n" in str(error.value)
    assert bits(run) == before


def test_swapped_labels_are_named(run, tmp_path):
    data = tmp_path / "swapped.jsonl"
    rows = map(json.loads, (ROOT / "recipes" / "data" / "tiny.jsonl").read_text().splitlines())
    data.write_text("".join(json.dumps(r | {"chosen": r["rejected"], "rejected": r["chosen"]}) + "\n" for r in rows))
    with pytest.raises(RunError, match=r"data.train: 10 rows, \w{12} -> 10 rows, \w{12}"):
        start(run, f"data.train.path={data}", resume="auto")


def test_going_on_with_other_settings_is_recorded(run):
    shutil.rmtree(run / "checkpoint-6")
    own = env(run)["run"]
    start(run, "train.beta=0.7", resume="auto", changed=True)
    assert env(run)["run"] == own
    assert env(run)["changes"] == [
        {"step": 4, "from": str(run / "checkpoint-4"), "changes": ["train.beta: 0.1 -> 0.7"]}
    ]
    assert "# from step 4 on: train.beta: 0.1 -> 0.7\n" in (run / "recipe.resolved.yaml").read_text()
    start(run, "train.beta=0.7", resume="auto")  # what was asked for once is the run now
    shutil.rmtree(run / "checkpoint-6")
    shutil.rmtree(run / "adapter")
    start(run, "train.beta=0.7", resume="auto")
    assert len(env(run)["changes"]) == 1
    with pytest.raises(RunError, match=r"train.beta: 0.7 -> 0.1"):
        start(run, resume="auto")


def test_a_run_that_is_made_longer_goes_on_and_says_so(run, caplog):
    start(run, "train.max_steps=8", resume="auto")
    assert manifest(run / "adapter")["step"] == 8
    assert env(run)["changes"][0]["changes"] == ["train.max_steps: 6 -> 8"]
    assert "from step 6 on: train.max_steps: 6 -> 8" in caplog.text


def test_a_checkpoint_of_another_run_is_refused_and_forked_when_asked(finished, run, tmp_path):
    start(tmp_path / "other", "train.max_steps=2")
    theirs = str(finished / "checkpoint-4")
    with pytest.raises(RunError, match="is of another run"):
        start(tmp_path / "other", resume=theirs, changed=True)
    with pytest.raises(RunError, match=r"run: \S+ -> a new one, in another directory"):
        start(tmp_path / "fork", resume=theirs)
    start(tmp_path / "fork", resume=theirs, changed=True)
    fork = env(tmp_path / "fork")
    assert fork["began_from"] == theirs
    assert fork["run"] not in (env(finished)["run"], env(tmp_path / "other")["run"])
    assert manifest(tmp_path / "fork" / "checkpoint-6")["identity"].run == fork["run"]


def test_a_fork_killed_before_it_saved_goes_on_from_the_same_checkpoint(finished, tmp_path):
    theirs = str(finished / "checkpoint-4")
    start(tmp_path / "fork", resume=theirs, changed=True)
    for name in ("adapter", "checkpoint-6"):
        shutil.rmtree(tmp_path / "fork" / name)
    with pytest.raises(RunError, match="has saved nothing since; name that checkpoint again, with --resume"):
        start(tmp_path / "fork", resume="auto")
    start(tmp_path / "fork", resume=theirs, changed=True)
    assert manifest(tmp_path / "fork" / "adapter")["step"] == 6


@pytest.fixture
def foreign(finished, tmp_path):
    """A checkpoint as TRL's own trainers write them."""
    shutil.copytree(finished / "checkpoint-4", tmp_path / "theirs" / "checkpoint-4")
    (tmp_path / "theirs" / "checkpoint-4" / MANIFEST).unlink()
    return tmp_path / "theirs" / "checkpoint-4"


def test_a_checkpoint_of_another_trainer_begins_a_run_when_asked(finished, foreign, tmp_path, caplog, capsys):
    run = tmp_path / "run"
    words = ["dpo/tiny", *SETTINGS, f"train.output_dir={run}", "--resume", str(foreign)]
    assert train.main(words) == 2
    assert "TRL's own trainers write them so: --unsealed goes on from it, if it is whole" in capsys.readouterr().err
    assert train.main([*words, "--unsealed"]) == 0
    ours, theirs = bits(run)["adapter/adapter_model.safetensors"], bits(finished)["adapter/adapter_model.safetensors"]
    assert ours == theirs
    assert "from step 4 on: began with a checkpoint that is not sealed: what it was trained with is not" in caplog.text
    assert (env(run)["began_from"], env(run)["changes"][0]["step"]) == (str(foreign), 4)
    assert manifest(run / "checkpoint-6")["identity"].run == env(run)["run"] != env(finished)["run"]
    before = bits(run)
    assert train.main([*words[:-1], "auto"]) == 0
    with pytest.raises(RunError, match="--unsealed: .* holds a run already"):
        start(run, resume=str(foreign), unsealed=True)
    assert bits(run) == before


@pytest.mark.parametrize("resume", [None, "auto"])
def test_unsealed_wants_a_checkpoint(tmp_path, resume):
    with pytest.raises(RunError, match="--unsealed: goes on from a checkpoint of another trainer; name it"):
        start(tmp_path / "run", resume=resume, unsealed=True)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: (path / MANIFEST).write_text("{}"), "it is sealed, and needs no --unsealed"),
        (lambda path: (path / "trainer_state.json").write_text("5"), "trainer_state.json is damaged"),
        (lambda path: (path / "trainer_state.json").unlink(), r"no checkpoint \(no trainer_state.json\)"),
        (lambda path: (path / "optimizer.pt").write_bytes(pickle.dumps(print)), "optimizer.pt"),
    ],
)
def test_what_is_no_checkpoint_of_another_trainer_begins_nothing(foreign, tmp_path, harm, told):
    harm(foreign)
    with pytest.raises(RunError, match=told):
        start(tmp_path / "run", resume=str(foreign), unsealed=True)
    assert not (tmp_path / "run").exists()


def test_auto_and_rotation_leave_checkpoints_of_other_runs_alone(run, tmp_path, caplog):
    start(tmp_path / "used", "train.max_steps=2")
    for step in (4, 6):  # of a longer run that was there before
        shutil.copytree(run / f"checkpoint-{step}", tmp_path / "used" / f"checkpoint-{step}")
    start(tmp_path / "used", "train.max_steps=3", "train.save_steps=1", "train.save_total_limit=1", resume="auto")
    assert "checkpoint-6: of another run" in caplog.text
    assert sorted(p.name for p in (tmp_path / "used").glob("checkpoint-*")) == [
        "checkpoint-3",
        "checkpoint-4",
        "checkpoint-6",
    ]
    assert manifest(tmp_path / "used" / "adapter")["step"] == 3


def test_auto_does_not_start_over_where_checkpoints_cannot_be_used(run):
    shutil.rmtree(run / "adapter")
    for step in (2, 4, 6):
        (run / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"damaged")
    before = bits(run)
    with pytest.raises(RunError, match=r"none of 3 checkpoints can be used.*optimizer.pt has 7 bytes"):
        start(run, resume="auto")
    assert bits(run) == before


def test_a_run_cut_short_in_its_first_save_starts_over(run):
    for name in ("adapter", "checkpoint-4", "checkpoint-6"):
        shutil.rmtree(run / name)
    (run / "checkpoint-2" / MANIFEST).unlink()
    before = env(run)["run"]
    start(run, resume="auto")
    assert env(run)["run"] != before
    assert manifest(run / "adapter")["step"] == 6


@pytest.mark.parametrize(
    "more", [["data.train.path=typo.jsonl"], ["model.model_name_or_path=typo"], ["lora.target_modules=[typo]"]]
)
def test_overwrite_deletes_nothing_before_all_else_works(run, more):
    before = bits(run)
    with pytest.raises((RunError, OSError, ValueError)):
        start(run, *more, overwrite=True)
    assert bits(run) == before


def test_overwrite_does_not_delete_what_the_recipe_reads(run):
    before = bits(run)
    with pytest.raises(RunError, match=r"ref.path: .*adapter is part of the run in .*, which --overwrite would delete"):
        start(run, f"ref={{kind: adapter, path: {run / 'adapter'}}}", "lora=null", overwrite=True)
    assert bits(run) == before


def test_a_folder_with_other_files_is_no_run_directory(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"other files \(thesis.tex\).*choose another train.output_dir"):
        start(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.name != ".lock"] == ["thesis.tex"]


def test_a_directory_of_an_earlier_version_goes_on(run, caplog):
    """It has no id; its recipe says what determined the numbers."""
    old = env(run)
    (run / "env.json").write_text(json.dumps({k: v for k, v in old.items() if k not in ("run", "identity", "changes")}))
    (run / "adapter" / MANIFEST).unlink()
    for path in run.glob(f"checkpoint-*/{MANIFEST}"):
        found = json.loads(path.read_text())
        path.write_text(json.dumps({k: v for k, v in found.items() if k not in ("identity", "ends_at")}))
    with pytest.raises(RunError, match=r"train.beta: 0.1 -> 0.7"):
        start(run, "train.beta=0.7", resume="auto")
    start(run, "train.max_steps=8", resume="auto")
    assert "which run this is, is not known" in caplog.text
    assert manifest(run / "adapter")["step"] == 8


@pytest.mark.parametrize("text", ["{", "5", '{"identity": 5}', '{"identity": {"run": 3}}', '{"ref": "base"}', b"\xff"])
def test_a_damaged_env_is_told(run, text):
    (run / "env.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RunError, match=r"env.json: damaged"):
        start(run, resume="auto")


def test_lines_that_are_no_records_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 0.5}\n5\n{"loss": 1}\n\xff\n{"step": 2')
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]


def test_a_damaged_result_without_checkpoints_is_not_trained_over(run):
    for path in run.glob("checkpoint-*"):
        shutil.rmtree(path)
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    before = bits(run)
    with pytest.raises(RunError, match="adapter: cannot be used .* no checkpoint to make it from"):
        start(run, resume="auto")
    assert bits(run) == before
