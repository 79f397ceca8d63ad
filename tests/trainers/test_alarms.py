"""Runs that go wrong say so in words, once."""

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from align.trainers.shared.alarms import WINDOW, Alarms, Unmoved

HEALTHY = {"loss": 0.6, "rewards/margins": 0.3, "log_ratio/chosen": -2.0, "length/chosen": 50.0}


def after(*records):
    alarms, state, arguments = Alarms(), TrainerState(), TrainingArguments(use_cpu=True, report_to="none")
    for step, record in enumerate(records, start=1):
        state.global_step = step
        alarms.on_log(arguments, state, TrainerControl(), logs=record)
    return alarms.told


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"rewards/margins": 0.0}, "stuck", "the policy has not moved"),
        ({"log_ratio/chosen": -40.0}, "displaced", "less likely by 0.80 nats per token"),
        ({"rewards/margins": 12.0}, "saturated", "almost no gradient left"),
    ],
)
def test_an_alarm_needs_ten_records_in_a_row(change, name, words, caplog):
    bad = HEALTHY | change
    assert after(*[bad] * (WINDOW - 1)) == {}
    assert after(*[bad] * (WINDOW - 1), HEALTHY, *[bad] * (WINDOW - 1)) == {}
    told = after(*[bad] * (2 * WINDOW))
    assert list(told) == [name]
    assert told[name].startswith(f"step {WINDOW}: ")
    assert words in told[name]
    assert len(caplog.messages) == 1


def test_evaluations_and_summaries_are_not_looked_at():
    assert after(*[{"eval_loss": 0.6, "eval_rewards/margins": 0.0}, {"train_loss": 0.0}] * WINDOW) == {}
    assert after(*[HEALTHY] * (2 * WINDOW)) == {}


def watched(steps, update, weights=None, *, ends=False):
    """What is told of a model that `update` changes at each step."""
    model = torch.nn.Linear(4, 3) if weights is None else weights
    model.bias.requires_grad_(False)
    unmoved, state, arguments = Unmoved(), TrainerState(), TrainingArguments(use_cpu=True, report_to="none")
    state.global_step = 5
    unmoved.on_train_begin(arguments, state, TrainerControl(), model=model)
    for _ in range(steps):
        state.global_step += 1
        with torch.no_grad():
            update(model)
        unmoved.on_step_end(arguments, state, TrainerControl(), model=model)
    if ends:
        unmoved.on_train_end(arguments, state, TrainerControl(), model=model)
    return unmoved.told


@pytest.mark.parametrize(
    "update",
    [lambda m: None, lambda m: m.bias.add_(1.0), lambda m: m.weight[0, 0].add_(1e-12)],
    ids=["none", "frozen", "tiny"],
)
def test_weights_that_stay_are_told_after_ten_steps_or_at_the_end(update, caplog):
    assert watched(WINDOW - 1, update) is None
    assert watched(2 * WINDOW, update).startswith(f"step {5 + WINDOW}: the policy does not move: in {WINDOW} steps")
    assert len(caplog.messages) == 1
    assert "in 3 steps no weight" in watched(3, update, ends=True)
    assert watched(0, update, ends=True) is None


def test_weights_that_move_or_break_are_not(caplog):
    assert watched(WINDOW, lambda m: m.weight[1, 1].add_(1e-6), ends=True) is None
    assert watched(WINDOW, lambda m: m.weight.fill_(float("nan")), ends=True) is None
    zero = torch.nn.Linear(4, 3)
    zero.weight.data.zero_()
    assert watched(WINDOW, lambda m: m.weight.add_(1e-9), zero, ends=True) is None
    assert caplog.messages == []
