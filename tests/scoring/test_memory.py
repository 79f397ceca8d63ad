"""Memory: what backward keeps, how much is free, and checkpointing only where it is needed."""

import logging

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn

from align import DPOConfig, DPOTrainer
from align.data.rows import normalise
from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring.memory import Activations, free_bytes, line_through, saved_bytes
from align.trainers.shared import checkpointing
from align.trainers.shared.checkpointing import largest_batch, lengths_of, positions_of


def test_saved_bytes_of_a_product_by_hand():
    """relu keeps its output, the second product its input, which is the same tensor; weights do not count."""
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
    x = torch.randn(10, 8)
    assert saved_bytes(lambda: model(x).sum(), model) == 10 * 8 * 4 + 10 * 16 * 4
    with torch.no_grad():
        assert saved_bytes(lambda: model(x).sum(), model) == 0


def test_a_line_through_two_measurements():
    assert line_through((10, 120), (20, 220)) == Activations(20.0, 10.0)
    assert line_through((20, 220), (10, 120)).at(30) == 320
    assert line_through((10, 100), (10, 100)) == Activations(0.0, 10.0)


def test_free_memory_is_shared_by_the_processes_of_a_launch(monkeypatch):
    alone = free_bytes(torch.device("cpu"))
    assert 2**26 < alone < 2**50
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(torch.device("cpu")) == pytest.approx(alone / 4, rel=0.2)


def test_lengths_are_those_after_truncation(tmp_path):
    trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, max_length=34)
    lengths = lengths_of(trainer.train_dataset, 34)
    for row, (prompt, chosen, rejected) in zip(trainer.train_dataset, lengths.tolist(), strict=True):
        assert prompt == len(row["prompt_ids"])
        assert chosen == min(len(row["chosen_ids"]), 34 - prompt)
        assert rejected == min(len(row["rejected_ids"]), 34 - prompt)


def test_positions_of_the_largest_batch(tmp_path):
    lengths = np.array([[10, 3, 4], [20, 1, 9], [5, 5, 5]])
    assert positions_of(lengths, packed=True).tolist() == [16, 29, 14]
    assert positions_of(lengths, packed=False).tolist() == [28, 58, 20]
    args = tiny.arguments(DPOConfig, tmp_path)
    assert largest_batch(lengths, args, packed=True) == 45
    assert largest_batch(lengths, args, packed=False) == 116
    args.max_tokens_per_batch = 40
    assert largest_batch(lengths, args, packed=True) == 40
    args.max_tokens_per_batch = 5
    assert largest_batch(lengths, args, packed=True) == 29


@pytest.mark.parametrize(("free", "on"), [(2**40, False), (2**10, True)])
def test_checkpointing_only_where_memory_asks_for_it(tmp_path, monkeypatch, caplog, free, on):
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: free)
    with caplog.at_level(logging.INFO):
        trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, gradient_checkpointing=None, max_steps=2)
    trainer.train()
    assert trainer.model.get_base_model().is_gradient_checkpointing is on
    said = [r.getMessage() for r in caplog.records if "activation checkpointing is" in r.getMessage()]
    assert len(said) == 1
    assert f"is {'on' if on else 'off'}: the largest batch (" in said[0]
    same = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, gradient_checkpointing=not on, max_steps=2)
    same.train()
    assert tiny.losses(trainer) == tiny.losses(same)


def test_what_is_asked_for_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 2**10)
    off = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, gradient_checkpointing=False)
    assert off.args.gradient_checkpointing is False
    streamed = tiny.pairs().to_iterable_dataset()
    assert tiny.trainer(
        DPOTrainer, DPOConfig, tmp_path, data=streamed, gradient_checkpointing=None
    ).args.activation_checkpointing


def test_the_prediction_is_what_a_large_batch_keeps(tmp_path):
    """Measured on two pairs, checked on all ten in one batch."""
    trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, per_device_train_batch_size=10)
    lengths = lengths_of(trainer.train_dataset, None)
    activations, packed = checkpointing.measure(trainer, trainer.train_dataset, lengths)
    assert packed
    batch = trainer.data_collator(list(trainer.train_dataset))
    kept = saved_bytes(lambda: trainer.compute_loss(trainer.model.train(), batch), trainer.model)
    assert activations.at(largest_batch(lengths, trainer.args, packed=True)) == pytest.approx(kept, rel=0.1)


def test_rows_become_python_objects_a_slice_at_a_time(monkeypatch):
    """Numbers of rows go on across slices, and so does the kind of the first row."""
    monkeypatch.setattr(normalise, "SLICE", 2)
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(5)]
    clean, dropped = normalise.normalise(Dataset.from_list(rows), columns={}, where="x")
    assert (clean["prompt"], dropped) == ([f"p{i}" for i in range(5)], [])
    rows[3]["chosen"] = "b"
    with pytest.raises(normalise.DataError, match="row 4: chosen and rejected are identical"):
        normalise.normalise(Dataset.from_list(rows), columns={}, where="x")
    assert len(normalise.normalise(Dataset.from_list(rows), columns={}, where="x", unusable="drop")[0]) == 4


def test_autocast_keeps_one_copy_of_what_several_maps_read(tmp_path):
    """PEFT would cast every input to the adapter's float32, and autocast each back to a bfloat16 copy of its own."""
    half = get_peft_model(tiny_model(tiny_tokenizer()).bfloat16(), LoraConfig(**tiny.LORA))
    trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, bf16=True, model=half)
    model = trainer.accelerator.prepare(trainer.model)
    batch = trainer.data_collator(list(trainer.train_dataset))
    trainer.compute_loss(model, batch)  # settles how rows are scored

    def kept():
        return saved_bytes(lambda: trainer.compute_loss(model, batch), model)

    plain = kept()
    value = trainer.compute_loss(model, batch)
    with trainer.no_casts():
        assert kept() < 0.9 * plain
        assert torch.equal(trainer.compute_loss(model, batch), value)
    assert kept() == plain


def test_parts_of_the_graph_that_are_let_go_are_not_counted():
    def forward():
        (torch.ones(1000, requires_grad=True) * torch.full((1000,), 3.0)).sum()
        return (torch.ones(10, requires_grad=True) * torch.full((10,), 2.0)).sum()

    assert saved_bytes(forward, torch.nn.Linear(1, 1)) == 10 * 4
