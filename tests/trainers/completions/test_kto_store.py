"""KTO's and BCO's reference comes from the store that pairs have: scored once, and by what was scored."""

import pytest
import tiny
import torch
from kto_worker import rows, trainer
from peft import LoraConfig, get_peft_model
from trl import KTOTrainer as TRLKTOTrainer
from trl.trainer import utils as trl_utils

from align import DPOConfig, DPOTrainer, KTOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring.reference_store import ReferenceStore
from align.trainers.shared.trl_contract import CHUNKED_HEAD

STORED = {"precompute_ref_log_probs": True, "per_device_train_batch_size": 4}


@pytest.fixture
def computed(tmp_path, monkeypatch):
    """Rows that went through the reference, of a store of one's own."""
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    scored, original = [], KTOTrainer.compute_ref_log_probs

    def spy(self, model, inputs):
        scored.append(len(inputs["input_ids"]))
        return original(self, model, inputs)

    monkeypatch.setattr(KTOTrainer, "compute_ref_log_probs", spy)
    return scored


@pytest.mark.parametrize("method", ["kto", "bco"])
def test_the_reference_is_scored_once(tmp_path, computed, method):
    first = trainer(tmp_path / "a", method, eval_data=rows(4), **STORED)
    assert sum(computed) <= 16 + 4
    computed.clear()
    made = trainer(tmp_path / "b", method, eval_data=rows(4), learning_rate=0.3, seed=5, **STORED)
    assert not computed
    names = [name for name in made.train_dataset.column_names if name.startswith("ref_")]
    assert names == (["ref_logps", "ref_KL_logps"] if method == "kto" else ["ref_logps"])
    batch = made._prepare_inputs(made.data_collator([made.train_dataset[row] for row in range(16)]))
    for name, direct in zip(names, made.compute_ref_log_probs(made.model, batch), strict=False):
        assert made.train_dataset[name] == first.train_dataset[name]
        assert made.train_dataset[name] == pytest.approx(direct.tolist(), abs=2e-5)
    assert len(set(made.train_dataset[names[-1]])) > 8


def test_values_of_pairs_are_found(tmp_path, computed):
    """DPO's answers are KTO's where each is a row of its own."""
    pairs = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "a", precompute_ref_log_probs=True, shared_prefix="off")
    made = trainer(tmp_path / "b", data=tiny.pairs(), loss_type="apo_zero_unpaired", **STORED).train_dataset
    assert not computed
    for side, label in (("chosen", True), ("rejected", False)):
        own = [value for value, good in zip(made["ref_logps"], made["label"], strict=True) if good is label]
        assert sorted(own) == sorted(pairs.train_dataset[f"ref_{side}_logps"])


def test_a_killed_pass_goes_on_where_it_was(tmp_path, computed, monkeypatch):
    monkeypatch.setattr("align.trainers.shared.precompute.SAVED", 1)
    original = ReferenceStore.add

    def killed(self, *args):
        original(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(ReferenceStore, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "a", **STORED)
    monkeypatch.setattr(ReferenceStore, "add", original)
    before = sum(computed)
    assert before == 4
    trainer(tmp_path / "b", **STORED)
    assert sum(computed) == 16


def test_stored_or_not_the_run_is_the_same(tmp_path, computed):
    runs = []
    for stored in (True, False):
        made = trainer(tmp_path / str(stored), **STORED | {"precompute_ref_log_probs": stored})
        made.train()
        runs.append(made)
    for key in ("loss", "kto/baseline", "rewards/margins"):
        assert tiny.losses(runs[0], key) == pytest.approx(tiny.losses(runs[1], key), rel=1e-4, abs=2e-5)


def test_the_copy_of_a_trained_adapter_stays_what_training_began_with(tmp_path, computed):
    """Rows that are scored after training are scored by the reference, not by the policy."""
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(0.05 * ("lora_B" in name))
    made = trainer(tmp_path, model=model, lora=None, learning_rate=0.05, **STORED)
    before = made.evaluate(rows(5), metric_key_prefix="before")["before_rewards/chosen"]
    kept = {name: weight.clone() for name, weight in model.named_parameters() if ".ref." in name}
    made.train()
    after = made.evaluate(rows(6), metric_key_prefix="after")["after_rewards/chosen"]
    assert before == pytest.approx(0.0, abs=1e-6)
    assert abs(after) > 1e-3
    assert kept
    for name, weight in model.named_parameters():
        if name in kept:
            torch.testing.assert_close(weight, kept[name])


@pytest.mark.parametrize("stored", [True, False])
def test_the_reference_is_scored_through_the_sparing_head(tmp_path, computed, monkeypatch, stored):
    heads, original = [], TRLKTOTrainer.compute_ref_log_probs

    def spy(self, *args):
        heads.append(trl_utils._ChunkedLogProbFunction)
        return original(self, *args)

    monkeypatch.setattr(TRLKTOTrainer, "compute_ref_log_probs", spy)
    trainer(tmp_path, **STORED | {"precompute_ref_log_probs": stored}, max_steps=1).train()
    assert heads
    assert CHUNKED_HEAD not in heads


def test_values_that_come_with_the_rows_are_taken(tmp_path, computed):
    made = trainer(tmp_path / "a", **STORED)
    again = trainer(tmp_path / "b", data=made.train_dataset.remove_columns("KL_completion_ids"), **STORED)
    assert again.train_dataset["ref_logps"] == made.train_dataset["ref_logps"]
