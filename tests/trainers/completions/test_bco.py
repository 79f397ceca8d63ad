"""BCO on labelled answers: a loop restated by hand, its running shift, and what does not depend on how rows are cut up."""

import kto_worker
import pytest
import tiny
import torch
from kto_worker import rows
from torch.testing import assert_close

from align import BCOConfig
from align.configs import ConfigError


def trainer(folder, **kw):
    return kto_worker.trainer(folder, "bco", **kw)


def trained(folder, **kw):
    made = trainer(folder, **kw)
    made.train()
    return made


def scored(model, row):
    """Log π of the answer of a tokenised row, from full logits."""
    ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
    logps = model(ids).logits[0, :-1].log_softmax(dim=1)
    each = logps.gather(1, ids[0, 1:, None])[:, 0]
    return each[len(row["prompt_ids"]) - 1 :].sum()


def test_four_steps_by_hand(tmp_path):
    """Four rows a step under SGD; δ is the mean of all rewards so far, the step's own included."""
    kw = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "learning_rate": 0.5, "max_steps": 4}
    theirs = trainer(tmp_path / "b")
    mine = trained(tmp_path / "a", per_device_train_batch_size=2, gradient_accumulation_steps=2, **kw)
    model, data = theirs.model.eval(), theirs.train_dataset
    seen, losses, shifts = [], [], []
    for step in range(4):
        batch = [data[4 * step + i] for i in range(4)]
        with model.disable_adapter(), torch.no_grad():
            ref = [scored(model, row) for row in batch]
        rewards = [0.3 * (scored(model, row) - its) for row, its in zip(batch, ref, strict=True)]
        seen += [reward.item() for reward in rewards]
        shift = sum(seen) / len(seen)
        signed = [(reward - shift) * (1 if row["label"] else -1) for reward, row in zip(rewards, batch, strict=True)]
        loss = sum(torch.log1p(torch.exp(-each)) for each in signed) / 4
        weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        slopes = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for weight, slope in zip(weights.values(), slopes, strict=True):
                weight -= 0.5 * slope
        losses.append(loss.item())
        shifts.append(shift)
    assert tiny.losses(mine) == pytest.approx(losses, rel=1e-5)
    assert tiny.losses(mine, "bco/shift") == pytest.approx(shifts, rel=1e-3, abs=1e-6)
    assert len({round(shift, 4) for shift in shifts}) == 4
    for name, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(mine)[name], weight, rtol=1e-4, atol=1e-6)


def test_four_accumulated_batches_equal_one(tmp_path):
    kw = {"max_steps": 4, "learning_rate": 0.003}
    one = trained(tmp_path / "a", per_device_train_batch_size=8, **kw)
    many = trained(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **kw)
    for key in ("loss", "bco/shift", "rewards/margins"):
        assert tiny.losses(many, key) == pytest.approx(tiny.losses(one, key), rel=1e-4, abs=1e-6), key
    for key, weight in tiny.weights(one).items():
        assert (tiny.weights(many)[key] - weight).norm() < 2e-3 * weight.norm(), key


def test_evaluation_takes_the_shift_as_it_is(tmp_path):
    made = trained(tmp_path, per_device_train_batch_size=4, eval_data={"b": rows(7)})
    before = made.shift.total, made.shift.rows
    found = []
    for size in (2, 7):
        made.args.per_device_eval_batch_size = size
        made.held["per_device_eval_batch_size"] = size
        found.append(made.evaluate())
    assert (made.shift.total, made.shift.rows) == before
    assert before[1] == 20
    assert found[0]["eval_b_bco/shift"] == pytest.approx(made.shift.mean, rel=1e-6)
    for key in ("eval_b_loss", "eval_b_rewards/margins"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-5, abs=1e-7), key


def test_a_run_that_resumes_ends_at_the_same_bits(tmp_path):
    kw = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trained(tmp_path / "whole", **kw)
    again = trainer(tmp_path / "again", **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert (again.shift.total, again.shift.rows) == (whole.shift.total, whole.shift.rows)
    assert tiny.losses(again, "bco/shift")[-1] == tiny.losses(whole, "bco/shift")[-1] != 0
    for name, weight in tiny.weights(whole).items():
        assert_close(tiny.weights(again)[name], weight, rtol=0, atol=0)


def test_a_step_that_is_skipped_does_not_count(tmp_path, monkeypatch):
    made = trainer(tmp_path, per_device_train_batch_size=4, max_steps=3)
    look, calls = made.looked_at, []

    def broken(inputs):
        calls.append(inputs)
        return look(inputs) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(made, "looked_at", broken)
    made.train()
    assert (made.guard.skipped, made.shift.rows) == (1, 8)
    assert made.shift.mean == pytest.approx(tiny.losses(made, "bco/shift")[-1], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "kto"}, "loss_type: not honoured here, got 'kto'; the loss is BCO's"),
        ({"desirable_weight": 2.0}, "desirable_weight: not honoured here, got 2.0; BCO weighs both labels the same"),
        ({"undesirable_weight": 2.0}, "undesirable_weight: not honoured here"),
        ({"class_weights": "data"}, "class_weights: not honoured here, got 'data'"),
        ({"beta": float("inf")}, "beta: must be positive and finite"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.arguments(BCOConfig, tmp_path, **settings)
