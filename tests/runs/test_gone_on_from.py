"""What a run cannot go on from, or be evaluated by, is refused in words, and before anything is changed."""

import shutil

import pytest

import align
from align.errors import RunError
from align.going_on import finished_run
from align.runs.contents import ENV_FILE, RECIPE_FILE


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


def test_a_recipe_edited_after_the_run_is_not_taken_for_the_run_s(run):
    finished_run(run)
    text = (run / RECIPE_FILE).read_text()
    (run / RECIPE_FILE).write_text(text.replace("beta: 0.1", "beta: 0.9"))
    with pytest.raises(RunError, match="changed after the run.*\n.*train.beta: 0.1 -> 0.9"):
        finished_run(run)
