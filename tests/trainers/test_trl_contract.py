"""What `align/trainers/shared/trl_contract.py` assumes about TRL; a TRL release that breaks one of these fails here, loudly."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from trl import DPOTrainer as TRLDPOTrainer
from trl import GRPOTrainer as TRLGRPOTrainer
from trl import RewardTrainer as TRLRewardTrainer
from trl import RLOOTrainer as TRLRLOOTrainer
from trl import SFTTrainer as TRLSFTTrainer
from trl.trainer import utils as trl_utils
from trl.trainer.dpo_trainer import DataCollatorForPreference

import align
from align import DPOConfig, DPOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.shared import trl_contract
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.scored import NOT_FOR_THE_MODEL, score
from align.trainers.shared.trl_contract import fast_head


@pytest.fixture
def trainer(tmp_path):
    return tiny.trainer(DPOTrainer, DPOConfig, tmp_path)


def batch(trainer, n=3):
    rows = [trainer.train_dataset[i] for i in range(n)]
    return trainer.data_collator(rows)


def test_signatures_we_override():
    assert list(inspect.signature(TRLDPOTrainer.compute_loss).parameters) == [
        "self", "model", "inputs", "return_outputs", "num_items_in_batch",
    ]  # fmt: skip
    assert list(inspect.signature(TRLDPOTrainer.compute_ref_log_probs).parameters) == ["self", "model", "inputs"]
    assert list(inspect.signature(TRLDPOTrainer.log).parameters) == ["self", "logs", "start_time"]
    for cls in (TRLDPOTrainer, TRLGRPOTrainer, TRLRLOOTrainer):
        assert list(inspect.signature(cls._save_checkpoint).parameters) == ["self", "model", "trial"]
        assert list(inspect.signature(cls.train).parameters)[1] == "resume_from_checkpoint"
    ours = list(inspect.signature(DPOTrainer.__init__).parameters)
    assert ours == list(inspect.signature(TRLDPOTrainer.__init__).parameters)
    assert TRLDPOTrainer.loss_is_scaled_for_ga is False  # the Trainer divides by the accumulation steps


def own_and_trl(name):
    """The classes of a trainer that are ours, and TRL's that they are mixed into."""
    classes = getattr(align, name).__mro__
    return [cls for cls in classes if cls.__module__.startswith("align.")], next(
        cls for cls in classes if cls.__module__.startswith("trl.")
    )


@pytest.mark.parametrize("name", [name for name in align.__all__ if name.endswith("Trainer")])
def test_private_names_we_override_are_listed_with_the_parameters_they_have(name):
    ours, theirs = own_and_trl(name)
    listed = trl_contract.OVERRIDDEN["Trainer"] | trl_contract.OVERRIDDEN[theirs.__name__]
    overridden = {attribute for cls in ours for attribute in vars(cls) if re.match("_[a-z]", attribute)} & set(
        dir(theirs)
    )
    assert overridden - trl_contract.LABELS <= set(listed)
    for method in overridden - trl_contract.LABELS:
        parameters = list(inspect.signature(getattr(theirs, method)).parameters)[1:]
        expected = listed[method].split()
        more = expected[-1:] == ["..."]
        assert ([*parameters[: len(expected) - 1], "..."] if more else parameters) == expected


def test_every_listed_private_name_is_overridden():
    names = [name for name in align.__all__ if name.endswith("Trainer")]
    found = {}
    for ours, theirs in map(own_and_trl, names):
        of_all = found.setdefault("Trainer", set())
        for attribute in {attribute for cls in ours for attribute in vars(cls)}:
            found.setdefault(theirs.__name__, set()).add(attribute)
            of_all.add(attribute)
    assert {
        cls: set(listed) - found[cls] for cls, listed in trl_contract.OVERRIDDEN.items() if set(listed) - found[cls]
    } == {}


FOLDER = Path(trl_contract.__file__).parents[1]
OTHERS = sorted(path for path in FOLDER.rglob("*.py") if path.name not in ("trl_contract.py", "trl_bases.py"))


def private_names_of_trl():
    """Names with a leading underscore that TRL's trainers and the Trainer have, of classes and of instances."""
    names = set()
    for cls in (TRLDPOTrainer, TRLGRPOTrainer, TRLRLOOTrainer, TRLSFTTrainer, TRLRewardTrainer):
        names |= {name for name in dir(cls) if re.match("_[a-z]", name)}
        for each in cls.__mro__[:-1]:
            names |= set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(each)))
    return names


def test_no_other_module_touches_private_names_of_trl():
    """But for overrides, which are listed, and calls of what they override."""
    private = private_names_of_trl()
    assert {"_signature_columns", "_buffered_inputs", "_metrics", "_prepare_inputs", "_tr_loss"} <= private
    touched = []
    for path in OTHERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in private:
                calls_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
                touched += [] if calls_super else [f"{path.name}:{node.lineno}: {node.attr}"]
    assert touched == []


def test_no_other_module_silences_the_type_checker():
    silenced = re.compile(r"#\s*(type|pyright):")
    assert [path.name for path in OTHERS if silenced.search(path.read_text(encoding="utf-8"))] == []


def test_a_batch_is_chosen_then_rejected():
    rows = [
        {
            "prompt_ids": [1, 2],
            "chosen_ids": [3, 4],
            "rejected_ids": [5],
            "ref_chosen_logps": -1.0,
            "ref_rejected_logps": -2.0,
        }
    ]
    out = DataCollatorForPreference(pad_token_id=0)(rows)
    assert out["input_ids"].tolist() == [[1, 2, 3, 4], [1, 2, 5, 0]]
    assert out["completion_mask"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 0]]
    assert set(out) == {"input_ids", "attention_mask"} | NOT_FOR_THE_MODEL


def test_cached_reference_columns_survive_to_the_collator(trainer):
    trainer._set_signature_columns_if_needed()
    assert {"prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps"} <= set(
        trainer._signature_columns
    )


def test_the_fused_head_returns_log_probabilities_of_the_labels(trainer):
    """Against a plain log-softmax of the model's logits, entropy and mean logit included."""
    inputs = batch(trainer)
    scored, _ = score(trainer.model, inputs)
    with torch.no_grad():
        logits = trainer.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    logps = logits.log_softmax(-1)
    target = inputs["input_ids"][:, 1:, None]
    mask = scored.mask
    assert_close(scored.token_logps[mask], logps.gather(-1, target).squeeze(-1)[mask], rtol=1e-4, atol=1e-5)
    assert_close(scored.entropy[mask], -(logps.exp() * logps).sum(-1)[mask], rtol=1e-4, atol=1e-4)
    assert_close(scored.mean_logits[mask], logits.mean(-1)[mask], rtol=1e-4, atol=1e-5)
    assert torch.equal(scored.is_top1[mask], (logits.argmax(-1, keepdim=True) == target).squeeze(-1)[mask])
    assert torch.equal(mask, inputs["completion_mask"][:, 1:].bool())


def test_the_head_sees_only_labelled_positions_on_cpu(trainer, monkeypatch):
    """About a fifth of a CPU step; the results are the same, which the parity tests show."""
    seen = []
    original = trl_contract._Head.apply
    monkeypatch.setattr(trl_contract._Head, "apply", lambda *a: seen.append(a[0].shape[0]) or original(*a))
    inputs = batch(trainer)
    score(trainer.model, inputs)
    assert seen == [int(inputs["completion_mask"][:, 1:].sum())]
    before = trl_utils._use_triton
    with pytest.raises(ZeroDivisionError), fast_head():
        1 / 0  # noqa: B018
    assert trl_utils._use_triton is before
    assert trl_utils._ChunkedLogProbFunction is trl_contract.CHUNKED_HEAD


def test_the_reference_is_the_base_model(trainer):
    inputs = batch(trainer)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.1)
    with torch.no_grad(), trainer.model.disable_adapter():
        base, _ = score(trainer.model, inputs)
    ref = torch.cat(trainer.compute_ref_log_probs(trainer.model, inputs))
    assert_close(ref, base.token_logps.sum(1))
    with torch.no_grad():
        policy, _ = score(trainer.model, inputs)
    assert (policy.token_logps.sum(1) - ref).abs().max() > 1e-2


def test_the_reference_of_a_loaded_adapter_is_its_frozen_copy(tmp_path):
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.05)
    trained = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, model=model)
    start = trained.compute_ref_log_probs(trained.model, batch(trained))[0]
    trained.train()
    assert tiny.losses(trained)[0] == pytest.approx(0.693147, abs=1e-5)
    assert_close(trained.compute_ref_log_probs(trained.model, batch(trained))[0], start)


def test_the_reference_has_no_dropout_while_the_policy_has(tmp_path):
    trained = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, lora={"lora_dropout": 0.5}, disable_dropout=False)
    inputs = batch(trained)
    trained.model.train()
    refs = [torch.cat(trained.compute_ref_log_probs(trained.model, inputs)) for _ in range(2)]
    assert torch.equal(*refs)
    trained.train()
    with torch.no_grad():
        policies = [score(trained.model.train(), inputs)[0].token_logps for _ in range(2)]
    assert not torch.equal(*policies)
    for module in trained.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    trained.model.train()
    refs = [torch.cat(trained.compute_ref_log_probs(trained.model, inputs)) for _ in range(2)]
    assert torch.equal(*refs)
    with dropout_off(trained.model):
        assert not any(m.training for m in trained.model.modules() if isinstance(m, torch.nn.Dropout))
    assert any(m.training for m in trained.model.modules() if isinstance(m, torch.nn.Dropout))
