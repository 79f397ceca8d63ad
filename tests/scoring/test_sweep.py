"""The reference store under trainers: a sweep pays once, a changed value is never read."""

import logging

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from align import DPOConfig, DPOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring.reference_store import ReferenceStore
from eval.pairs.logps import stored


@pytest.fixture
def computed(monkeypatch):
    """Pairs that went through the reference."""
    pairs = []
    original = DPOTrainer.compute_ref_log_probs

    def spy(self, model, inputs):
        pairs.append(len(inputs["input_ids"]) // 2)
        return original(self, model, inputs)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", spy)
    return pairs


def made(tmp_path, **kw):
    return tiny.trainer(DPOTrainer, DPOConfig, tmp_path, precompute_ref_log_probs=True, **kw)


def columns(trainer):
    return [trainer.train_dataset[name] for name in ("ref_chosen_logps", "ref_rejected_logps")]


def test_a_sweep_computes_the_reference_once(tmp_path, computed, caplog):
    """Six learning rates, then other seeds, ranks, folders, losses and batch sizes: nothing is computed again."""
    made(tmp_path / "0", eval_data=tiny.pairs(4))
    assert sum(computed) == 10  # the four evaluation pairs are among them
    computed.clear()
    for step in range(1, 6):
        made(tmp_path / str(step), learning_rate=0.01 * step)
    made(tmp_path / "6", seed=9, beta=0.7, label_smoothing=0.1, lora={"r": 2, "lora_alpha": 99})
    made(tmp_path / "7", per_device_train_batch_size=5, gradient_checkpointing=True)
    assert computed == []
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "reference" in r.getMessage()]
    assert "of train: 0 of 10 rows were in the store, 10 computed" in said[0]
    assert "of train: 10 of 10 rows were in the store, 0 computed" in said[-1]


@pytest.mark.parametrize("what", ["weights", "adapter", "tokens", "template", "max_length", "dtype", "sharing"])
def test_what_changes_the_value_changes_the_key(tmp_path, computed, what):
    tokenizer = tiny_tokenizer()
    model = get_peft_model(tiny_model(tokenizer), LoraConfig(**tiny.LORA)) if what == "adapter" else None
    made(tmp_path / "a", model=model)
    before = sum(computed)
    assert before == 10
    if what == "weights":
        made(tmp_path / "b", model=get_peft_model(tiny_model(tokenizer, seed=1), LoraConfig(**tiny.LORA)))
    elif what == "adapter":
        other = get_peft_model(tiny_model(tokenizer), LoraConfig(**tiny.LORA))
        with torch.no_grad():
            next(p for n, p in other.named_parameters() if "lora_B" in n).add_(0.1)
        made(tmp_path / "b", model=other)
    elif what == "tokens":
        made(
            tmp_path / "b",
            data=tiny.pairs(10).map(
                lambda row: {"chosen": [{**row["chosen"][0], "content": row["chosen"][0]["content"] + "!"}]}
            ),
        )
    elif what == "template":
        tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>", "<|system|>")
        DPOTrainer(
            model=tiny_model(tokenizer), args=tiny.arguments(DPOConfig, tmp_path, precompute_ref_log_probs=True),
            train_dataset=tiny.pairs(), processing_class=tokenizer, peft_config=LoraConfig(**tiny.LORA),
        )  # fmt: skip
    elif what == "max_length":
        made(tmp_path / "b", max_length=30)
    elif what == "dtype":
        made(tmp_path / "b", model=get_peft_model(tiny_model(tokenizer).double(), LoraConfig(**tiny.LORA)))
    else:
        made(tmp_path / "b", shared_prefix="off")
    again = sum(computed) - before
    assert again == 10 if what != "max_length" else 0 < again <= 10


def test_stored_values_are_the_references(tmp_path):
    trainer = made(tmp_path / "a")
    again = made(tmp_path / "b", per_device_train_batch_size=3)
    assert columns(trainer) == columns(again)
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(10)]))
    for kept, direct in zip(columns(trainer), trainer.compute_ref_log_probs(trainer.model, batch), strict=True):
        assert kept == pytest.approx(direct.tolist(), abs=2e-5)


def test_new_rows_only_are_computed(tmp_path, computed):
    made(tmp_path / "a", data=tiny.pairs(6))
    computed.clear()
    made(tmp_path / "b", data=tiny.pairs(9))
    assert sum(computed) == 3


def test_equal_rows_are_computed_once(tmp_path, computed):
    twice = tiny.pairs(3).select([0, 1, 2, 1, 0, 0])
    trainer = made(tmp_path, data=twice)
    assert sum(computed) == 3
    assert columns(trainer)[0][0] == columns(trainer)[0][4]


def test_a_killed_pass_goes_on_where_it_was(tmp_path, computed, monkeypatch):
    monkeypatch.setattr("align.trainers.shared.precompute.SAVED", 1)
    original = ReferenceStore.add

    def killed(self, *args):
        original(self, *args)
        if sum(computed) >= 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(ReferenceStore, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "a")
    monkeypatch.setattr(ReferenceStore, "add", original)
    computed.clear()
    made(tmp_path / "b")
    assert sum(computed) == 4


def test_a_value_that_is_not_finite_is_an_error_that_names_the_row(tmp_path, monkeypatch):
    monkeypatch.setattr(
        DPOTrainer,
        "compute_ref_log_probs",
        lambda self, model, inputs: (torch.full((len(inputs["input_ids"]) // 2,), float("nan")),) * 2,
    )
    with pytest.raises(ValueError, match=r"of rows \[\d+.* are not finite"):
        made(tmp_path)


def test_streamed_data_have_no_rows_to_keep(tmp_path):
    rows = tiny.pairs().to_iterable_dataset()
    with pytest.raises(ValueError, match="train is streamed"):
        made(tmp_path, data=rows, max_steps=1)


def test_evaluate_on_other_data_uses_the_store(tmp_path, computed):
    trainer = made(tmp_path, data=tiny.pairs(6))
    computed.clear()
    trainer.evaluate(tiny.pairs(8))
    assert sum(computed) == 2


def test_evaluations_score_the_reference_once(tmp_path):
    """Two evaluations against one reference; another reference, or another answer, is scored."""
    scored = []

    def score(sequences):
        scored.append(len(sequences))
        return np.array([-float(len(completion)) for _, completion in sequences])

    sequences = [([1, 2], [3]), ([1, 2], [4, 5]), ([1, 2], [3])]
    for _ in range(2):
        assert stored(ReferenceStore({"weights": "a"}), sequences, score).tolist() == [-1.0, -2.0, -1.0]
    assert scored == [2]
    stored(ReferenceStore({"weights": "a"}), [*sequences, ([1], [2, 3])], score)
    stored(ReferenceStore({"weights": "b"}), sequences, score)
    assert scored == [2, 1, 2]
