"""BCO on labelled answers: a loop restated by hand, its running shift, and what does not depend on how rows are cut up."""

import math

import kto_worker
import pytest
import tiny
import torch
from datasets import Dataset
from kto_worker import rows
from torch.testing import assert_close

from align import BCOConfig
from align.configs import ConfigError
from align.trainers.completions import bco


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
    kw |= {"prompt_encoder": "reference"}
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


def unequal():
    """The first prompt in desirable rows alone, the last in undesirable ones alone, the middle one in both."""
    said = [("what is two plus two", "four"), ("name a colour", "red is one"), ("is water wet", "no, it is not")]
    asked = [0, 1, 0, 1, 2, 2, 1, 2]
    return Dataset.from_list(
        [
            {"prompt": said[i][0], "completion": said[i][1], "label": n < 4}
            for n, i in enumerate(asked)
        ]
    )  # fmt: skip


def test_undesirable_rows_weigh_by_how_often_their_prompt_is_in_desirable_ones(tmp_path):
    """Shares of the middle prompt are ½ and ¼, of the last 0 and ¾; the ridge draws the odds towards 1."""
    kw = {"data": unequal(), "eval_data": {"b": unequal()}, "per_device_train_batch_size": 8, "max_steps": 1}
    made = kto_worker.trainer(tmp_path / "a", "bco_ratio", **kw)
    weights = made.train_dataset["weight"]
    assert weights[:4] == [1.0] * 4
    middle, last = weights[6], weights[4]
    assert weights[4:] == [last, last, middle, last]
    assert last < 1 < middle
    assert made.eval_dataset["b"]["weight"] == weights
    held = kto_worker.trainer(tmp_path / "b", "bco_ratio", min_density_ratio=0.99, max_density_ratio=1.01, **kw)
    assert held.train_dataset["weight"][4:] == pytest.approx([0.99, 0.99, 1.01, 0.99])
    made.train()  # at the first step rewards are 0: every loss is ln 2
    assert tiny.losses(made)[0] == pytest.approx(math.log(2) * sum(weights) / 8, rel=1e-5)
    assert tiny.losses(made, "weight/rejected")[0] == pytest.approx(sum(weights[4:]) / 4, rel=1e-5)
    again = made.evaluate(unequal())
    assert again["eval_weight/rejected"] == pytest.approx(sum(weights[4:]) / 4, rel=1e-5)


def test_the_reference_reads_prompts_without_the_adapter(tmp_path):
    made = trainer(tmp_path, prompt_encoder="reference")
    base = made.model.get_base_model().base_model
    prompts = [made.train_dataset[i]["prompt_ids"] for i in (0, 3)]
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
        with made.model.disable_adapter():
            by_hand = [base(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in prompts]
    found = made._embedded(made.train_dataset)[[0, 3]]
    assert_close(found, torch.stack([row / row.norm() for row in by_hand]), rtol=1e-4, atol=1e-5)


def test_a_sentence_encoder_reads_the_words_of_each_prompt_once(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    read = []

    def embedded(texts, *, model, device):
        read.extend(texts)
        return torch.eye(len(texts))

    monkeypatch.setattr(bco, "sentence_embeddings", embedded)
    made = trainer(tmp_path / "run", prompt_encoder=str(tmp_path), data=unequal())
    assert read[:3] == ["what is two plus two", "name a colour", "is water wet"]
    assert made.train_dataset["weight"][4] < 1 < made.train_dataset["weight"][6]


def test_rows_that_stream_have_no_density_ratio(tmp_path):
    with pytest.raises(ValueError, match="prompt_encoder reads all prompts, which streamed rows do not let"):
        trainer(tmp_path, prompt_encoder="reference", data=rows().to_iterable_dataset())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "kto"}, "loss_type: not honoured here, got 'kto'; the loss is BCO's"),
        ({"desirable_weight": 2.0}, "desirable_weight: not honoured here, got 2.0; BCO weighs both labels the same"),
        ({"undesirable_weight": 2.0}, "undesirable_weight: not honoured here"),
        ({"class_weights": "data"}, "class_weights: not honoured here, got 'data'"),
        ({"prompt_encoder": "nowhere"}, "prompt_encoder: no encoder at 'nowhere'.*or say 'reference'"),
        (
            {"min_density_ratio": 2.0, "max_density_ratio": 1.0},
            "min_density_ratio: must be from 0 to max_density_ratio",
        ),
        ({"beta": float("inf")}, "beta: must be positive and finite"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.arguments(BCOConfig, tmp_path, **settings)
