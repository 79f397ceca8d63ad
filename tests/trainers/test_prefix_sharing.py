"""Trainers whose prompts are computed once: when they are, when they are not, and what stays the same."""

import json

import pytest
import tiny
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from packing import skip_the_prefix
from peft import LoraConfig, get_peft_model
from torch.random import fork_rng
from torch.testing import assert_close
from transformers import HfArgumentParser, MistralConfig, MistralForCausalLM
from trl import TrlParser

from align import DPOConfig, DPOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring import shared_prefix
from align.scoring.batching import parts_within
from align.scoring.shared_prefix import SharedPrefixModel, restore
from align.trainers.shared.metrics import MetricSums
from align.trainers.shared.scored import score, scoring_inputs

SETTINGS = {"max_steps": 3, "optim": "sgd", "learning_rate": 1.0}  # Adam divides rounding by rounding


def trainer(tmp_path, mode="on", **kw):
    return tiny.trainer(DPOTrainer, DPOConfig, tmp_path, shared_prefix=mode, **SETTINGS | kw)


def trained(*args, **kw):
    result = trainer(*args, **kw)
    result.train()
    return result


def strong(result):
    """The trainer with a model whose attention matters, and an adapter that does something."""
    with fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        for name, weight in result.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
            elif "lora" not in name and weight.dim() > 1:
                weight.mul_(5.0)
    return result


def mistral(window=8):
    """A model that cannot share prompts if rows are longer than its window."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        tokens = len(tiny_tokenizer())
        base = MistralForCausalLM(
            MistralConfig(vocab_size=tokens, sliding_window=window, num_key_value_heads=2, **sizes)
        )
        return get_peft_model(base, LoraConfig(**tiny.LORA))


def same(one, other, *, loss=1e-5, moved=1e-5):
    """The same curve, and weights that moved alike; those of an adapter's second factor start at zero."""
    assert tiny.losses(one) == pytest.approx(tiny.losses(other), abs=loss)
    weights = {name: value for name, value in tiny.weights(other).items() if "lora_A" not in name}
    assert weights
    for name, value in weights.items():
        assert value.norm() > 0, name
        assert (tiny.weights(one)[name] - value).norm() <= moved * value.norm(), name


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if "shared_prefix" in record.getMessage()]


def attention_of(result):
    return result.model.get_base_model().config._attn_implementation


def test_fewer_positions_than_tokens_are_computed_or_at_least_as_many(tmp_path, caplog):
    on, off = trained(tmp_path / "a"), trained(tmp_path / "b", "off")
    assert max(tiny.losses(on, "computed_per_token")) < 0.8
    assert tiny.losses(on, "padding") == [0.0] * 3
    assert min(tiny.losses(off, "computed_per_token")) > 1.0
    for padding, computed in zip(tiny.losses(off, "padding"), tiny.losses(off, "computed_per_token"), strict=True):
        assert padding == pytest.approx(1 - 1 / computed)
        assert padding > 0
    assert not warnings(caplog)
    assert attention_of(off) == "sdpa"
    same(on, off)


def test_auto_shares_where_it_can(tmp_path):
    assert max(tiny.losses(trained(tmp_path, "auto"), "computed_per_token")) < 0.8


def test_auto_falls_back_with_one_line_that_says_why(tmp_path, caplog):
    one = trained(tmp_path / "a", "auto", model=mistral())
    [message] = warnings(caplog)
    assert "every prompt is computed once per answer, because MistralForCausalLM (mistral) attends through" in message
    assert "sliding window of 8" in message
    other = trained(tmp_path / "b", "off", model=mistral())
    assert len(warnings(caplog)) == 1
    assert tiny.losses(one) == tiny.losses(other)
    assert tiny.losses(one, "computed_per_token") == tiny.losses(other, "computed_per_token")


def test_a_window_that_holds_the_longest_row_does_not_matter(tmp_path):
    result = trained(tmp_path, model=mistral(window=48), max_length=48)
    assert max(tiny.losses(result, "computed_per_token")) < 0.8


def test_on_raises_instead_before_the_first_step(tmp_path):
    result = trainer(tmp_path, model=mistral())
    before = tiny.weights(result)
    with pytest.raises(ValueError, match=r"shared_prefix: 'on', but MistralForCausalLM .* window of 8.*; use 'auto'"):
        result.train()
    assert result.state.global_step == 0
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.weights(result).items())


def test_auto_notices_a_wrong_mask_and_undoes_what_it_did(tmp_path, monkeypatch, caplog):
    skip_the_prefix(monkeypatch)
    one, other = strong(trainer(tmp_path / "a", "auto")), strong(trainer(tmp_path / "b", "off"))
    one.train()
    [message] = warnings(caplog)
    assert "LlamaForCausalLM" in message or "PeftModel" in message
    assert "the first batch, scored both ways, says no: log-probabilities differ by up to" in message
    assert attention_of(one) == "sdpa"
    other.train()
    assert tiny.losses(one) == tiny.losses(other)
    with pytest.raises(ValueError, match="'on', but .* log-probabilities differ"):
        strong(trainer(tmp_path / "c")).train()


def test_more_inputs_than_tokens_are_not_packed(tmp_path, caplog):
    result = trainer(tmp_path, "auto")
    collate = result.data_collator

    def with_positions(rows):
        made = collate(rows)
        return made | {"position_ids": torch.arange(made["input_ids"].shape[1]).expand_as(made["input_ids"])}

    result.data_collator = with_positions
    result.train()
    assert warnings(caplog)[0].endswith("because the batch has more than tokens (position_ids)")
    same(result, trained(tmp_path / "b", "off"))


def test_generation_is_that_of_the_model_before(tmp_path):
    result = strong(trained(tmp_path))
    model = result.model.eval()
    assert attention_of(result) == "shared_prefix"
    prompts = {"input_ids": torch.tensor([[0, 0, 40, 50], [60, 70, 80, 90]])}
    prompts["attention_mask"] = (prompts["input_ids"] > 0).long()
    after = model.generate(**prompts, max_new_tokens=8, do_sample=False)
    logits = model(**prompts).logits
    restore(model, "sdpa")
    assert torch.equal(after, model.generate(**prompts, max_new_tokens=8, do_sample=False))
    assert torch.equal(logits, model(**prompts).logits)


def test_a_reference_model_of_its_own_is_packed_too(tmp_path):
    results = []
    for mode in ("on", "off"):
        tokenizer = tiny_tokenizer()
        args = tiny.arguments(DPOConfig, tmp_path / mode, shared_prefix=mode, max_steps=3, learning_rate=1e-3)
        result = DPOTrainer(
            model=tiny_model(tokenizer), ref_model=tiny_model(tokenizer, seed=1), args=args,
            train_dataset=tiny.pairs(), processing_class=tokenizer,
        )  # fmt: skip
        result.train()
        results.append(result)
    assert all(isinstance(results[0].sharing.scorer(m, {}, results[0].accelerator), SharedPrefixModel) for m in (results[0].model, results[0].ref_model))  # fmt: skip
    same(*results, moved=1e-5)
    assert tiny.losses(results[0])[0] != pytest.approx(0.693147, abs=1e-4)


@pytest.mark.parametrize("mode", ["on", "off"])
def test_checkpointing_changes_nothing(tmp_path, mode):
    same(*(trained(tmp_path / str(kept), mode, gradient_checkpointing=kept) for kept in (True, False)), loss=1e-6)


def test_evaluation_shares_prompts(tmp_path, monkeypatch):
    on, off = (
        strong(trainer(tmp_path / mode, mode, eval_data=tiny.pairs(6), per_device_eval_batch_size=4))
        for mode in ("on", "off")
    )
    made = []
    plan = shared_prefix.make_plan
    monkeypatch.setattr(shared_prefix, "make_plan", lambda *a, **kw: made.append(plan(*a, **kw)) or made[-1])
    metrics = on.evaluate()
    assert [p.rows for p in made] == [4, 8, 4]  # two prompts of the first batch are checked
    for name, value in off.evaluate().items():
        if not name.endswith(("_runtime", "_per_second", "_time")):
            assert metrics[name] == pytest.approx(value, abs=1e-4), name
    assert not any("padding" in name or "computed" in name for name in metrics)


def test_dropout_of_a_prompt_is_shared_by_its_answers(tmp_path):
    """Only keys and values have dropout here, so that nearly all of it is the prompt's."""
    ids = torch.arange(100, 141).expand(2, -1)  # the same answer twice, of one token
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": (ids == 140).long()}
    scored, related = [], []
    for mode in ("on", "off"):
        lora = {"lora_dropout": 0.3, "target_modules": ["k_proj", "v_proj"]}
        result = strong(trainer(tmp_path / mode, mode, lora=lora, disable_dropout=False))
        scorer = result.sharing.scorer(result.model, scoring_inputs(inputs), result.accelerator)
        assert isinstance(scorer, SharedPrefixModel) == (mode == "on")
        with torch.no_grad():
            result.model.eval()
            scored.append(score(scorer, inputs)[0].token_logps)
            result.model.train()
            draws = torch.stack([score(scorer, inputs)[0].token_logps.sum(1) for _ in range(60)])
        related.append(float(torch.corrcoef(draws.T)[0, 1]))
    assert_close(*scored, rtol=0, atol=1e-4)
    assert related[0] > 0.8
    assert abs(related[1]) < 0.5


def test_saved_configurations_do_not_name_our_attention(tmp_path):
    trained(tmp_path / "lora", save_strategy="steps", save_steps=3)
    saved = [*(tmp_path / "lora" / "checkpoint-3").glob("*config*.json")]
    assert saved
    assert all("shared_prefix" not in path.read_text() for path in saved)
    result = trained(tmp_path / "b")
    result.model.get_base_model().save_pretrained(tmp_path / "whole")
    assert "attn" not in json.dumps(json.loads((tmp_path / "whole" / "config.json").read_text()))


@pytest.mark.parametrize("parser", [TrlParser, HfArgumentParser])
def test_parsers_know_the_settings(tmp_path, parser):
    words = ["--output_dir", str(tmp_path), "--shared_prefix", "on", "--max_tokens_per_batch", "512", "--use_cpu"]
    found = parser((DPOConfig,)).parse_args_into_dataclasses([*words, "--bf16", "false"])[0]
    assert (found.shared_prefix, found.max_tokens_per_batch) == ("on", 512)
    with pytest.raises(SystemExit):
        parser((DPOConfig,)).parse_args_into_dataclasses([*words, "--shared_prefix", "sometimes"])


# parts


@pytest.mark.parametrize(("mode", "accumulate"), [("on", 1), ("off", 1), ("on", 2)])
def test_parts_of_a_batch_add_up_to_the_whole(tmp_path, monkeypatch, mode, accumulate):
    kw = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulate}
    sizes = []
    compute = DPOTrainer.compute_loss
    monkeypatch.setattr(DPOTrainer, "compute_loss", lambda *a, **k: sizes.append(len(a[2]["input_ids"])) or compute(*a, **k))  # fmt: skip
    whole = trained(tmp_path / "a", mode, **kw)
    rows, steps = sum(sizes), len(sizes)
    sizes.clear()
    parts = trained(tmp_path / "b", mode, max_tokens_per_batch=150, **kw)
    assert sum(sizes) == rows
    assert len(sizes) > steps
    same(parts, whole, moved=1e-5)
    for one, other in zip(parts.state.log_history[:-1], whole.state.log_history[:-1], strict=True):
        for name in set(other) - {"padding", "computed_per_token"}:
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name
    if mode == "off":
        assert tiny.losses(parts, "padding")[0] < 0.9 * tiny.losses(whole, "padding")[0]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 700))
def test_parts_are_a_permutation_within_the_budget(tokens, budget):
    parts = parts_within(tokens, budget)
    assert sorted(i for part in parts for i in part.tolist()) == list(range(len(tokens)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(tokens[i] for i in part) <= budget
    assert [tokens[i] for part in parts for i in part] == sorted(tokens, reverse=True)
    assert len(parts_within(tokens, 300 * 40)) == 1


def test_copies_that_fill_the_last_batch_up_are_dropped_from_what_was_held_in_parts(monkeypatch):
    accelerator = Accelerator(cpu=True)  # the third pair is a copy that fills the last batch up
    monkeypatch.setattr(accelerator, "gather_for_metrics", lambda rows: rows[:2])
    sums = MetricSums()
    for values in ([10.0], [20.0, 30.0]):
        sums.hold({"loss": (torch.tensor(values), torch.ones(len(values)))})
    sums.add("eval", accelerator)
    assert sums.take("eval") == {"loss": 15.0}


@pytest.mark.parametrize("seen", [True, False])
def test_an_adapter_that_reads_other_tokens_of_its_row_shares_nothing(tmp_path, caplog, monkeypatch, seen):
    """Also one that no rule knows: the check runs with adapters that are not zero, and leaves them as they were."""
    if not seen:
        monkeypatch.setattr(shared_prefix, "_reads_the_row", lambda config: False)
    made = trainer(tmp_path, "auto", lora={"alora_invocation_tokens": [4]}, max_steps=1, learning_rate=0.0)
    before = tiny.weights(made)
    made.train()
    assert not made.sharing.packs(made.model, made.accelerator)
    why = "the adapter does other things after certain tokens" if seen else "scored both ways, says no: log-prob"
    assert [why in text for text in warnings(caplog)] == [True]
    assert all(torch.equal(before[name], weight) for name, weight in tiny.weights(made).items())
