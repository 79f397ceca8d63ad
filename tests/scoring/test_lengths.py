"""Batches of similar lengths: random, repeatable, and less padded."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

from align import DPOConfig, DPOTrainer
from align.configs import ConfigError
from align.scoring.batching import SeededLengthSampler
from align.trainers.shared.prefix_sharing import few

LENGTHS = np.random.default_rng(0).integers(10, 500, 400).tolist()


def padding(order, size=4):
    rows = np.array(LENGTHS)[list(order)].reshape(-1, size)
    return 1 - rows.sum() / (rows.max(axis=1) * size).sum()


def test_mega_batches_are_random_and_repeat():
    sampler = SeededLengthSampler(4, LENGTHS, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(400))
    assert list(sampler) == first == list(SeededLengthSampler(4, LENGTHS, seed=1))
    sampler.set_epoch(1)
    assert list(sampler) != first != list(SeededLengthSampler(4, LENGTHS, seed=2))
    assert padding(first) < 0.25 * padding(np.random.default_rng(1).permutation(400))
    longest_first = np.array(LENGTHS)[first].reshape(-1, 4).max(axis=1)
    assert not (np.diff(longest_first) <= 0).all()  # by length within a mega-batch, not over all


def steps(tmp_path, **kw):
    return tiny.trainer(
        DPOTrainer, DPOConfig, tmp_path, train_sampling_strategy="group_by_length", max_steps=12,
        per_device_train_batch_size=2, shared_prefix="off", **kw,
    )  # fmt: skip


def test_a_resumed_run_goes_on_with_the_same_batches(tmp_path):
    """Across epochs of five steps."""
    whole = steps(tmp_path / "a", save_strategy="steps", save_steps=7)
    whole.train()
    resumed = steps(tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-7"))
    assert tiny.losses(resumed)[-5:] == tiny.losses(whole)[-5:]
    for name, weight in tiny.weights(whole).items():
        assert torch.equal(tiny.weights(resumed)[name], weight)


def test_similar_lengths_go_together(tmp_path):
    """Pairs of six very different lengths, each sixteen times, two in a step: they meet their like."""
    rows = [{"prompt": "p" * 20 * n, "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(16) for n in range(1, 7)]
    data = Dataset.from_list(rows)
    grouped = steps(tmp_path / "a", data=data)
    grouped.train()
    mixed = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "b", data=data, max_steps=12, shared_prefix="off")
    mixed.train()
    assert np.mean(tiny.losses(grouped, "padding")) < 0.05 < 0.1 < np.mean(tiny.losses(mixed, "padding"))


def test_a_strategy_that_cannot_work_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="train_sampling_strategy: 'batch_rebalance' needs"):
        tiny.arguments(DPOConfig, tmp_path, train_sampling_strategy="batch_rebalance")


def test_two_prompts_of_middling_length_are_checked():
    ids = torch.arange(1, 61).reshape(6, 10)
    ids[3:, :3] = ids[:3, :3]  # three prompts of three tokens, two answers each
    present = torch.zeros(6, 10, dtype=torch.long)
    for row, length in enumerate([9, 5, 6, 10, 5, 7]):
        present[row, :length] = 1
    labels = ids.masked_fill(present == 0, -100)
    labels[:, :3] = -100
    found = few({"input_ids": ids, "attention_mask": present, "labels": labels})
    assert found["input_ids"].tolist() == ids[[1, 2, 4, 5], :7].tolist()
    assert found["attention_mask"].sum(dim=1).tolist() == [5, 6, 5, 7]
    one = {name: value[[0, 3]] for name, value in (("input_ids", ids), ("attention_mask", present), ("labels", labels))}
    assert few(one)["labels"].shape == (2, 10)
