"""What a run cannot go on from, or be evaluated by, is refused in words, and before anything is changed."""

import json
import shutil

import pytest

import align
from align.errors import RunError
from align.going_on import finished_run
from align.run_identity import WRITTEN, recipe_differences
from align.runs.contents import ENV_FILE, RECIPE_FILE
from align.runs.identity import written


def start(run, *more, **kw):
    align.run("dpo/tiny", [f"train.output_dir={run}", "train.disable_tqdm=true", "eval.generate=null", *more], **kw)


@pytest.fixture(scope="module")
def weights_alone(tmp_path_factory):
    run = tmp_path_factory.mktemp("alone") / "run"
    start(run, "train.save_only_model=true", "train.max_steps=2")
    return run


@pytest.fixture
def run(weights_alone, tmp_path):
    shutil.copytree(weights_alone, tmp_path / "run")
    return tmp_path / "run"


def test_without_the_optimizer_s_state_no_run_goes_on(run):
    before = (run / ENV_FILE).read_bytes()
    with pytest.raises(RunError, match="holds no state of the optimizer"):
        start(run, "train.save_only_model=true", "train.max_steps=4", resume="auto")
    assert (run / ENV_FILE).read_bytes() == before
    start(run, "train.save_only_model=true", "train.max_steps=2", resume="auto")  # finished


def test_an_adapter_is_no_checkpoint(run):
    with pytest.raises(RunError, match="adapter: no checkpoint of a run"):
        start(run, "train.max_steps=4", resume=str(run / "adapter"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("beta: 0.1", "beta: 0.9", r"train.beta: 0.1 -> 0.9"),
        ("  beta: 0.1\n", "", r"train.beta: 0.1 -> \(not said\)"),
        ("lora:\n", "lora:\n  use_rslora: true\n", r"lora.use_rslora: \(not said\) -> true"),
        ("method: dpo\n", "method: [\n", "damaged"),
    ],
)
def test_a_recipe_edited_after_the_run_is_not_taken_for_the_run_s(run, old, new, told):
    finished_run(run)
    text = (run / RECIPE_FILE).read_text()
    assert old in text
    (run / RECIPE_FILE).write_text(text.replace(old, new))
    with pytest.raises(RunError, match=told):
        finished_run(run)


@pytest.mark.parametrize(
    ("old", "new"),
    [("  logging_steps: 1\n", ""), ("recipes/data/tiny.jsonl", "moved/tiny.jsonl"), ("batch_size: 4", "batch_size: 2")],
)
def test_what_changes_no_number_of_the_run_may_be_edited(run, old, new):
    text = (run / RECIPE_FILE).read_text()
    (run / RECIPE_FILE).write_text(text.replace(old, new))
    finished_run(run)


def test_an_edited_recipe_of_rounds_is_known_by_the_first_line_of_their_ledger(tmp_path):
    said = written({"method": "dpo", "rounds": {"count": 2, "sample": {"each": 4}}, "train": {"beta": 0.1}})
    first = {"round": 0, "stage": "recipe", "counts": {WRITTEN: said}, "inputs": {}, "outputs": {}}
    (tmp_path / "rounds.jsonl").write_text(json.dumps(first) + "\n")
    (tmp_path / RECIPE_FILE).write_text("method: dpo\nrounds: {count: 2}\ntrain: {beta: 0.1}\n")
    assert [str(d) for d in recipe_differences(tmp_path)] == ["rounds.sample.each: 4 -> (not said)"]
