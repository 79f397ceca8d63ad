"""EGPO through its trainer: only the answers come from the half point, and nothing of the half step stays."""

import copy

import pytest
import tiny
import torch
from datasets import Dataset
from groups import PROMPTS, equal_weights, known, pair_trainer
from groups import pair_run as trained
from torch.testing import assert_close
from transformers import TrainerCallback


class Seen(TrainerCallback):
    """Weights, optimizer and micro-batches just before each optimizer step."""

    def __init__(self):
        self.steps, self.trainer = [], None

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **_):
        inner = getattr(optimizer, "optimizer", optimizer)
        self.steps.append(
            (
                tiny.weights(self.trainer),
                copy.deepcopy(inner.state_dict()),
                copy.deepcopy(self.trainer._buffered_inputs),
            )
        )


def test_only_the_answers_of_a_step_come_from_the_half_point(tmp_path):
    """Weights and optimizer before the step are those after the last one, and a run without half steps repeats it."""
    seen, sampled_at = Seen(), []
    trainer = pair_trainer(
        tmp_path / "a", method="egpo", callbacks=[seen], per_device_train_batch_size=4, gradient_accumulation_steps=2,
        learning_rate=0.05, max_grad_norm=1.0, seed=1,
    )  # fmt: skip
    seen.trainer, generate = trainer, trainer._generate_single_turn
    trainer._generate_single_turn = lambda *a, **k: sampled_at.append(tiny.weights(trainer)) or generate(*a, **k)
    steps = []

    class After(TrainerCallback):
        def on_step_end(self, args, state, control, optimizer=None, **_):
            steps.append(
                (tiny.weights(trainer), copy.deepcopy(getattr(optimizer, "optimizer", optimizer).state_dict()))
            )

    trainer.add_callback(After())
    trainer.train()
    assert trainer.state.global_step == 3
    assert len(sampled_at) == 6
    halves = 0
    for number, (weights, state, _) in enumerate(seen.steps):
        old, half = sampled_at[2 * number : 2 * number + 2]
        assert all(torch.equal(weights[name], old[name]) for name in weights)
        halves += any(not torch.equal(half[name], old[name]) for name in weights)
        if number:
            after, left = steps[number - 1]
            assert all(torch.equal(weights[name], after[name]) for name in weights)
            assert left["state"].keys() == state["state"].keys()
            for key, moments in left["state"].items():
                assert all(torch.equal(moments[name], state["state"][key][name]) for name in moments)
        else:
            assert not state["state"]
    assert halves >= 2  # answers that are worth the same have none
    # a run that never takes a half step, on the same answers
    plain = pair_trainer(
        tmp_path / "b", method="online_ipo", per_device_train_batch_size=4, gradient_accumulation_steps=2,
        learning_rate=0.05, max_grad_norm=1.0, seed=1,
    )  # fmt: skip
    given = iter(seen.steps)
    prepare = plain._prepare_inputs

    def same_answers(batch):
        new = plain._step % 2 == 0
        inputs = prepare(batch)
        if new:
            plain._buffered_inputs = next(given)[2]
            return plain._buffered_inputs[0]
        return inputs

    plain._prepare_inputs = same_answers
    plain.train()
    assert equal_weights(plain, trainer)
    other = trained(tmp_path / "c", method="online_ipo", learning_rate=0.05)
    assert not equal_weights(other, trainer)


def test_a_half_step_is_the_step_that_would_be_taken(tmp_path):
    """From the old weights, and clipped as the Trainer clips."""
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.5,
        "max_steps": 1,
    }
    settings |= {"answers": known, "learning_rate": 0.02, "optim": "sgd"}
    plain = trained(tmp_path / "a", method="online_ipo", **settings)
    trainer, at = pair_trainer(tmp_path / "b", method="egpo", **settings), []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *a, **k: at.append(tiny.weights(trainer)) or generate(*a, **k)
    trainer.train()
    for name, weight in tiny.weights(plain).items():
        assert_close(at[1][name], weight, rtol=1e-5, atol=1e-7)
        assert_close(tiny.weights(trainer)[name], weight, rtol=1e-5, atol=1e-7)  # the answers were the same


def test_a_half_step_that_is_not_finite_is_left_out(tmp_path, caplog):
    trainer = pair_trainer(tmp_path, method="egpo", max_steps=1)
    compute, calls = trainer.compute_loss, []
    trainer.compute_loss = lambda *a, **k: (
        calls.append(1) or compute(*a, **k) * (float("nan") if len(calls) == 1 else 1)
    )
    trainer.train()
    assert any("step 1: no half step is taken: the loss is not finite" in r.message for r in caplog.records)
    assert all(torch.isfinite(w).all() for w in tiny.weights(trainer).values())


def test_an_evaluation_samples_pairs_too_and_takes_no_half_step(tmp_path):
    trainer = pair_trainer(tmp_path, method="egpo", eval_dataset=Dataset.from_dict({"prompt": PROMPTS}))
    before = tiny.weights(trainer)
    measured = trainer.evaluate()
    assert measured["eval_loss"] == pytest.approx(25.0, rel=0.1)
    assert measured["eval_pairs/unscored"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.weights(trainer).items())
