"""Training preference models on the tiny model: TRL's path at one dimension, cycles at two, and what does not matter."""

import logging
import math

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig
from reward_models import NOT_THE_SAME, SEQ_CLS, arguments, base, build, plain, trained, with_margins
from safetensors.torch import load_file
from torch.testing import assert_close
from trl import RewardConfig, RewardTrainer

from align.models.preference_model import PreferenceModel
from align.models.tiny import tiny_tokenizer


@pytest.mark.parametrize("lora", [tiny.LORA, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", tiny.sparing(["plain", "chat", "margin", "center"], "chat", "margin"))
def test_five_steps_of_a_reward_model_are_trls(tmp_path, kind, lora):
    data = {"plain": plain(tiny.pairs()), "margin": with_margins(tiny.pairs())}.get(kind, tiny.pairs())
    kw = {"center_rewards_coefficient": 0.3} if kind == "center" else {}
    ours = trained(tmp_path / "a", data=data, lora=lora, margin_column="margin" if kind == "margin" else None, **kw)
    theirs = RewardTrainer(
        base(1),
        arguments(RewardConfig, tmp_path / "b", **kw),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**SEQ_CLS) if lora else None,
    )
    theirs.train()
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=1e-6)
    for key in ("accuracy", "margin", "num_tokens"):
        assert tiny.losses(ours, key) == pytest.approx(tiny.losses(theirs, key), abs=1e-6), key
    assert tiny.losses(ours)[-1] != tiny.losses(ours)[0]
    mine, reference = tiny.weights(ours), tiny.weights(theirs)
    assert mine.keys() == reference.keys()
    for name, weight in reference.items():
        assert_close(mine[name], weight, rtol=1e-5, atol=1e-7)
    rewards = [tiny.losses(ours, f"rewards/{side}") for side in ("chosen", "rejected")]
    assert [a - b for a, b in zip(*rewards, strict=True)] == pytest.approx(tiny.losses(ours, "margin"), abs=1e-6)


def test_trl_still_refuses_heads_of_more_outputs_and_we_undo_what_it_is_told(tmp_path):
    """Once it does not, `one_label` can go."""
    with pytest.raises(ValueError, match="num_labels=2"):
        RewardTrainer(
            base(2), arguments(RewardConfig, tmp_path), train_dataset=tiny.pairs(), processing_class=tiny_tokenizer()
        )
    config = build(tmp_path, dimension=2).model.config
    assert config.id2label == base(2).config.id2label
    assert config.label2id == base(2).config.label2id


CYCLE = [("stone", "scissors"), ("scissors", "paper"), ("paper", "stone")]


def test_a_model_of_two_dimensions_learns_a_cycle_that_no_reward_can(tmp_path):
    data = Dataset.from_list([{"prompt": "I take ", "chosen": a, "rejected": b} for a, b in CYCLE])
    shares = {}
    for dimension, tau in ((1, 1.0), (2, 0.1)):
        trainer = trained(
            tmp_path / str(dimension), data=data, dimension=dimension, tau=tau, max_steps=60, learning_rate=0.02,
            per_device_train_batch_size=3, logging_steps=60,
        )  # fmt: skip
        judge = PreferenceModel(trainer.model.eval(), tiny_tokenizer(), dimension, tau)
        wins = judge.prefer("I take ", ["stone", "scissors", "paper"])
        shares[dimension] = sum(wins[i, j] > 0.5 for i, j in ((0, 1), (1, 2), (2, 0))) / 3
        loss = float(-sum(math.log(wins[i, j]) for i, j in ((0, 1), (1, 2), (2, 0))) / 3)
        assert loss >= math.log(2) - 1e-6 if dimension == 1 else loss < 0.1
    assert shares[2] == 1.0
    assert shares[1] <= 2 / 3


@pytest.mark.parametrize("dimension", [1, 4])
def test_accumulated_batches_take_the_same_steps(tmp_path, dimension):
    kw = {
        "dimension": dimension,
        "tau": 0.3,
        "max_steps": 2,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
    }
    kw |= {"data": with_margins(tiny.pairs(8), "gap"), "margin_column": "gap"}
    whole = trained(tmp_path / "a", per_device_train_batch_size=4, **kw)
    parts = trained(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=4, **kw)
    for key in ("loss", "margin", "probability", "accuracy"):
        assert tiny.losses(parts, key) == pytest.approx(tiny.losses(whole, key), abs=2e-6), key
    for name, weight in tiny.weights(whole).items():
        assert_close(tiny.weights(parts)[name], weight, rtol=1e-5, atol=1e-6)


def loss_of(trainer, rows):
    batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]


def test_the_order_of_pairs_in_a_batch_does_not_matter(tmp_path):
    trainer = build(tmp_path, dimension=2, tau=0.3, data=with_margins(tiny.pairs()), margin_column="margin")
    one, other = (loss_of(trainer, rows) for rows in ([0, 1, 2, 3], [2, 0, 3, 1]))
    assert one[0] == pytest.approx(other[0], abs=1e-6)
    for a, b in zip(one[1], other[1], strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert loss_of(trainer, [0])[0] != pytest.approx(loss_of(trainer, [1])[0], abs=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_does_not_matter(tmp_path, side):
    trainer = build(tmp_path, dimension=4, tau=0.3)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    pad, tokenizer = (7, 0) if side == "left" else (0, 7), tiny_tokenizer()
    loss = float(trainer.compute_loss(trainer.model, batch).detach())
    more = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], pad, value=tokenizer.pad_token_id),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], pad),
    }
    assert float(trainer.compute_loss(trainer.model, more).detach()) == pytest.approx(loss, abs=1e-6)


def test_autocast_to_bfloat16_changes_the_loss_by_rounding_only(tmp_path):
    losses = [tiny.losses(trained(tmp_path / str(b), dimension=4, tau=0.3, bf16=b, max_steps=3)) for b in (False, True)]
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert losses[1] != losses[0]


def test_metrics_do_not_depend_on_the_size_of_eval_batches(tmp_path):
    data = with_margins(tiny.pairs(7), "gap")
    found = []
    for size in (1, 4):
        trainer = build(
            tmp_path / str(size), data=data, eval_data={"a": data, "b": data.select(range(3))}, margin_column="gap",
            per_device_eval_batch_size=size, center_rewards_coefficient=0.1, tau=0.5,
        )  # fmt: skip
        found.append({k: v for k, v in trainer.evaluate().items() if not k.endswith(NOT_THE_SAME)})
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    names = ("loss", "loss/preference", "loss/center", "accuracy", "margin", "probability", "rewards/chosen")
    assert all(f"eval_{part}_{name}" in found[0] for part in "ab" for name in names)
    assert found[0]["eval_a_loss"] != found[0]["eval_b_loss"]
    assert found[0]["eval_a_loss"] == pytest.approx(found[0]["eval_a_loss/preference"] + found[0]["eval_a_loss/center"])


def test_a_tie_counts_one_half_and_costs_log_two(tmp_path):
    model = base(2)
    model.score.weight.data.zero_()
    found = build(tmp_path, model=model, lora=None, dimension=2, eval_data=tiny.pairs()).evaluate()
    assert found["eval_accuracy"] == 0.5
    assert found["eval_loss"] == pytest.approx(math.log(2))
    assert found["eval_probability"] == 0.5


def test_a_margin_asks_for_more_and_a_temperature_divides(tmp_path):
    model = base(2)
    model.score.weight.data.zero_()
    data = tiny.pairs(2).add_column("gap", [0.2, 0.6])
    found = build(
        tmp_path, model=model, lora=None, dimension=2, tau=0.1, data=data, eval_data=data, margin_column="gap"
    ).evaluate()
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(6))) / 2
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert found["eval_probability"] == 0.5  # of the answer, not of its lead


def test_a_probability_is_that_of_the_model(tmp_path):
    one = tiny.pairs(1)
    found = build(tmp_path, dimension=2, tau=0.01, eval_data=one, data=one).evaluate()
    assert found["eval_probability"] == pytest.approx(1 / (1 + math.exp(-found["eval_margin"] / 0.01)), rel=1e-5)
    assert abs(found["eval_probability"] - 0.5) > 0.01


def test_no_gate_of_the_prompt_is_trained_and_every_block_counts_one(tmp_path):
    """The authors' score with λ = 1, restated in complex numbers: Σ_k Im(conj(a_k) b_k)."""
    trainer = build(tmp_path, dimension=4, tau=0.5)
    trainable = [name for name, p in trainer.model.named_parameters() if p.requires_grad and "lora_" not in name]
    assert trainable == ["base_model.model.score.modules_to_save.default.weight"]
    found = trainer.predict(tiny.pairs())
    first, second = found.predictions[:, 0], found.predictions[:, 1]
    a, b = (side[:, 0::2] + 1j * side[:, 1::2] for side in (first, second))
    score = (a.conj() * b).imag.sum(1)
    assert found.metrics["test_margin"] == pytest.approx(score.mean(), rel=1e-5)
    assert found.metrics["test_loss"] == pytest.approx(np.log1p(np.exp(-score / 0.5)).mean(), rel=1e-5)


def test_the_template_of_a_reference_is_what_the_model_reads(tmp_path):
    data = plain(tiny.pairs(3)).add_column("gold", ["four", "blue", "4"])
    trainer = trained(tmp_path, data=data, eval_data=data, reference_column="gold", max_steps=1)
    read = tiny_tokenizer().decode(trainer.train_dataset[0]["chosen_ids"])
    assert read == "what is two plus two\nfour\n<split>\nwhat is two plus two\nfour\n<reward><|end|>"
    assert trainer.eval_dataset["chosen_ids"] == trainer.train_dataset["chosen_ids"]
    chat = tiny.pairs(3).add_column("gold", ["four", "blue", "4"])
    again = build(tmp_path, data=chat, reference_column="gold")
    assert again.train_dataset["chosen_ids"] == trainer.train_dataset["chosen_ids"]


def test_a_step_that_is_not_finite_is_skipped_and_not_logged(tmp_path):
    data = tiny.pairs(4).add_column("gap", [0.0, math.nan, 0.0, 0.0])
    trainer = trained(tmp_path, data=data, margin_column="gap", dimension=2, max_steps=4, per_device_train_batch_size=1)
    assert trainer.guard.skipped == 1
    assert all(p.isfinite().all() for p in tiny.weights(trainer).values())
    assert all(math.isfinite(loss) for loss in tiny.losses(trainer))
    assert len(tiny.losses(trainer)) == 3
    assert tiny.losses(trainer, "skipped_steps")[-1] == 1
    kept = next((tmp_path / "skipped").glob("step-*/batches-0.safetensors"))
    assert load_file(kept)["0.margin"].isnan().all()  # the batch that did it


def test_pairs_that_are_too_long_are_told_and_none_left_is_an_error(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        short = build(tmp_path, max_length=26)
    left = 10 - len(short.train_dataset)
    assert 0 < left < 10
    assert f"train: {left} of 10 pairs are longer than max_length=26 and are left out" in caplog.text
    with pytest.raises(ValueError, match="10 of 10 pairs are longer than max_length=3; raise it"):
        build(tmp_path, max_length=3)
