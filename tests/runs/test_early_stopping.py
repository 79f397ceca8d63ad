"""The end of training by a metric: at the same step with and without an interruption, with the best weights."""

import json
import shutil

import pytest
from peft import load_peft_weights
from recipes_under_test import GOOD, problems
from torch import equal

from align.train import run

EVALUATES = [
    "train.eval_strategy=steps", "train.eval_steps=1", "train.save_steps=1", "train.load_best_model_at_end=true",
    "train.metric_for_best_model=tiny_loss",
]  # fmt: skip
NEVER_BETTER = ["train.early_stopping_patience=2", "train.early_stopping_threshold=100", "train.max_steps=9"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that can never improve by as much as is asked for: two evaluations after the first one, it ends."""
    path = tmp_path_factory.mktemp("early") / "run"
    return run("dpo/tiny", [*EVALUATES, *NEVER_BETTER, f"train.output_dir={path}"])


def again(path, *words):
    return run("dpo/tiny", [*EVALUATES, *NEVER_BETTER, f"train.output_dir={path}", *words], resume="auto")


def ended(path):
    record = json.loads((path / "adapter" / "alignkit.json").read_text())
    return record["step"], record["ends_at"]


def test_it_ends_after_so_many_evaluations_with_the_best_weights(stopped, caplog):
    state = stopped.trainer.state
    assert state.global_step == 3
    best = stopped.path / f"checkpoint-{state.best_global_step}"
    kept, saved = (load_peft_weights(str(folder), device="cpu") for folder in (best, stopped.path / "adapter"))
    assert all(equal(kept[name], saved[name]) for name in kept)
    card = (stopped.path / "README.md").read_text()
    assert f"The weights are those of step {state.best_global_step}, best by `tiny_loss`." in card


def test_such_a_run_has_finished(stopped, caplog):
    assert ended(stopped.path) == (3, 3)
    before = (stopped.path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    again(stopped.path)
    assert "finished at step 3, nothing to do" in caplog.text
    assert (stopped.path / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("left", [2, 3])
def test_a_resumed_run_ends_at_the_same_step_with_the_same_weights(stopped, tmp_path, left, caplog):
    path = shutil.copytree(stopped.path, tmp_path / "run")
    shutil.rmtree(path / "adapter")
    for step in range(left + 1, 4):
        shutil.rmtree(path / f"checkpoint-{step}")
    assert again(path).trainer.state.global_step == 3
    assert ended(path) == (3, 3)
    one, other = (load_peft_weights(str(where / "adapter"), device="cpu") for where in (stopped.path, path))
    assert all(equal(one[name], other[name]) for name in one)
    assert ("has not improved in 2 evaluations (best " in caplog.text) == (left == 2)


def test_what_would_never_stop_is_refused(tmp_path):
    better = ["train.load_best_model_at_end=true", "train.metric_for_best_model=x_loss", "train.eval_strategy=steps",
              "train.eval_steps=5", "train.save_steps=5", "data.holdout=0.1"]  # fmt: skip
    (said,) = problems(tmp_path, GOOD, "train.early_stopping_patience=2")
    assert "early_stopping_patience: needs load_best_model_at_end and metric_for_best_model too" in said
    (said,) = problems(tmp_path, GOOD, "train.early_stopping_threshold=0.1")
    assert "early_stopping_threshold: does nothing without early_stopping_patience" in said
    (said,) = problems(tmp_path, GOOD, "train.early_stopping_patience=0", *better)
    assert "early_stopping_patience: must be at least 1" in said
    (said,) = problems(
        tmp_path, GOOD, "train.early_stopping_patience=1", "train.early_stopping_threshold=-1.0", *better
    )
    assert "early_stopping_threshold: must be finite and not negative" in said
