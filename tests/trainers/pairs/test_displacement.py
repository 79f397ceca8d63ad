"""The displacement of chosen answers."""

import pytest
import tiny
import torch

from align import DPOConfig, DPOTrainer
from align.configs import ConfigError
from align.trainers.pairs.displacement import Displacement

KEYS = [f"displacement/{side}" for side in ("chosen", "rejected", "greedy")]


def watched(trainer):
    return [record for record in trainer.state.log_history if KEYS[0] in record]


def test_every_evaluation_logs_what_became_of_the_three_answers(tmp_path):
    made = tiny.trainer(
        DPOTrainer, DPOConfig, tmp_path, eval_data=tiny.pairs(4), displacement_pairs=3, max_steps=6,
        eval_strategy="steps", eval_steps=3,
    )  # fmt: skip
    made.train()
    records = watched(made)
    assert [r["step"] for r in records] == [3, 6]  # the end is an evaluation too, and logged once
    assert all(set(KEYS) <= set(r) for r in records)
    assert all(abs(records[-1][key]) > 1e-3 for key in KEYS)
    assert records[-1]["displacement/chosen"] > records[-1]["displacement/rejected"]


def test_the_change_is_that_of_the_log_probability(tmp_path):
    made = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, displacement_pairs=2, max_steps=3)
    probe = next(c for c in made.callback_handler.callbacks if isinstance(c, Displacement))
    made.train()
    (row, _), model = probe.rows, made.model.eval()

    def logp(answer):
        ids = torch.tensor([row.prompt + answer])
        with torch.no_grad():
            return float(-model(input_ids=ids, labels=ids.masked_fill(torch.arange(ids.size(1)) < len(row.prompt), -100)).loss * len(answer))  # fmt: skip

    for side in ("chosen", "rejected", "greedy"):
        answer = getattr(row, side)
        with model.disable_adapter():
            before = logp(answer)
        assert float(probe.before[side][0]) == pytest.approx(before, abs=1e-3)
        assert float(probe._logps()[side][0]) == pytest.approx(logp(answer), abs=1e-3)
    assert probe.measure()["displacement/chosen"] == pytest.approx(watched(made)[-1]["displacement/chosen"], abs=1e-6)


def test_the_greedy_answer_is_the_most_likely_one_before_training(tmp_path):
    made = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, displacement_pairs=1, max_steps=1)
    probe = next(c for c in made.callback_handler.callbacks if isinstance(c, Displacement))
    made.train()
    (row,) = probe.rows
    with torch.no_grad(), made.model.disable_adapter():
        logits = made.model.eval()(input_ids=torch.tensor([row.prompt + row.greedy])).logits[
            0, len(row.prompt) - 1 : -1
        ]
    assert logits.argmax(-1).tolist() == row.greedy


def test_training_is_the_same_with_and_without_the_probe(tmp_path):
    one = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "a", max_steps=3)
    other = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "b", max_steps=3, displacement_pairs=2)
    one.train()
    other.train()
    assert tiny.losses(one) == tiny.losses(other)


def test_a_negative_number_of_pairs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="displacement_pairs: must not be negative, got -1"):
        tiny.arguments(DPOConfig, tmp_path, displacement_pairs=-1)
