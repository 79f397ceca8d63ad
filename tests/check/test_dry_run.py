"""`alignkit check --deep`: what a run will cost, from a few of its steps."""

import numpy as np
import pytest

from align import AOTTrainer, cli
from align.commands import dry_run
from align.data import load_preferences
from align.recipe.loading import load_recipe
from align.scoring.flops import count_flops
from align.train import build_trainer

QUIET = ['train.eval_strategy="no"', 'train.save_strategy="no"']


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Nothing here looks at how long a step takes."""
    monkeypatch.setattr(dry_run, "REPETITIONS", 1)


def recipe(tmp_path, *overrides):
    return load_recipe("rpo/tiny", [f"train.output_dir={tmp_path / 'run'}", *QUIET, *overrides])


def test_predicted_flops_are_those_of_the_run(tmp_path):
    """One epoch, counted while it runs; the check of the first batch is not training and happens before."""
    words = ["train.max_steps=-1", "train.num_train_epochs=1", "train.per_device_train_batch_size=5"]
    cost = dry_run.predict(recipe(tmp_path, *words))
    assert (cost.pairs, cost.steps, cost.packed, cost.checkpointing) == (10, 2, True, False)
    made = recipe(tmp_path, *words)
    trainer, _ = build_trainer(made, load_preferences(made.data).train, {})
    trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    trainer.first_step = None  # looks at the reference once, which is no training either
    counted = count_flops(trainer.train)
    assert cost.teraflops_per_step * cost.steps * 1e12 == pytest.approx(counted, rel=0.02)


def test_nothing_is_written_and_everything_is_said(tmp_path, capsys):
    words = ["rpo/tiny", f"train.output_dir={tmp_path / 'run'}", "train.precompute_ref_log_probs=true"]
    assert cli.main(["check", *words, "--deep"]) == 0
    said = capsys.readouterr().out
    for part in ("packed, each prompt once", "checkpointing: off", "steps of", "for the reference once", "peak memory"):
        assert part in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list(tmp_path.glob("cache/reference/*"))


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["train.max_steps=7"], 7),
        (["train.max_steps=-1", "train.num_train_epochs=3", "train.gradient_accumulation_steps=2"], 9),
    ],
)
def test_steps_are_those_the_trainer_takes(tmp_path, overrides, steps):
    """Ten pairs, two at a time; an accumulation that the epoch's end cuts short is a step too."""
    assert dry_run.predict(recipe(tmp_path, *overrides)).steps == steps


def test_what_is_asked_for_costs_what_it_says(tmp_path):
    plain = dry_run.predict(recipe(tmp_path))
    double = dry_run.predict(recipe(tmp_path, "train.gradient_accumulation_steps=2"))
    padded = dry_run.predict(recipe(tmp_path, "train.shared_prefix=off"))
    stored = dry_run.predict(recipe(tmp_path, "train.precompute_ref_log_probs=true"))
    assert double.teraflops_per_step == pytest.approx(2 * plain.teraflops_per_step)
    assert padded.teraflops_per_step > 1.2 * plain.teraflops_per_step
    assert not padded.packed
    assert stored.teraflops_per_step < 0.9 * plain.teraflops_per_step
    assert stored.reference_seconds > 0 == plain.reference_seconds
    assert 2**27 < plain.peak_bytes < 2**34
    assert plain.seconds_per_step > 0


def test_a_reference_that_nothing_reads_costs_nothing(tmp_path):
    words = [f"train.output_dir={tmp_path / 'run'}", *QUIET]
    with_it, without = (
        dry_run.predict(load_recipe("pairwise/tiny", [*words, f"train.objective={{{name}: 1.0}}"]))
        for name in ("cal_dpo", "simpo")
    )
    assert without.teraflops_per_step < 0.9 * with_it.teraflops_per_step


def test_a_step_that_is_looked_at_first_costs_the_look(tmp_path, monkeypatch):
    looks, look = [], AOTTrainer.look_first
    monkeypatch.setattr(AOTTrainer, "look_first", lambda self, batches: looks.append(1) or look(self, batches))
    recipe = load_recipe("aot/tiny", [f"train.output_dir={tmp_path / 'run'}", *QUIET])
    assert dry_run.predict(recipe).steps == 4
    assert len(looks) == 4  # one that warms up and three lengths


def test_a_line_has_no_negative_part():
    assert dry_run._line([1, 2, 3], [12, 14, 16]) == pytest.approx((10, 2))
    assert dry_run._line([1, 2, 3], [5, 4, 3]) == (5, 0)
    assert dry_run._line([1, 2, 3], [0, 2, 4]) == pytest.approx((0, 16 / 14))
    assert dry_run._line([7, 7, 7], [1, 2, 3]) == (3, 0)


def test_a_batch_around_a_quantile():
    order = np.arange(10)
    assert dry_run._around(order, 0.5, 2).tolist() == [5, 6]
    assert dry_run._around(order, 0.9, 4).tolist() == [6, 7, 8, 9]
    assert dry_run._around(order, 0.1, 99).tolist() == list(range(10))
