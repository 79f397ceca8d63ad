"""Runs that go wrong say so in words, once."""

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from align.trainers.shared.alarms import WINDOW, Alarms

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
