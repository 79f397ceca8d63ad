"""The analytic cost of a step is the counted one, in total and kind by kind."""

from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer
from trl.trainer.utils import add_fused_lm_head

from align import DPOConfig, DPOTrainer
from align.models.tiny import tiny_tokenizer
from align.scoring.flops import Architecture, FlopCounter, count_flops, step_flops
from align.scoring.shared_prefix import SharedPrefixModel, prepare
from align.trainers.shared.trl_contract import fast_head

MIXES = [[(40, 5, 17), (3, 12, 1), (25, 8, 30)], [(150, 4, 6)], [(1, 7, 5), (60, 50, 50)]]
KINDS = {
    "linear": ("linear", "first_linear"),
    "lora": ("lora", "first_lora"),
    "head": ("head",),
    "attention": ("attention_width",),
}


def llama():
    tokenizer = tiny_tokenizer()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512,
        )
    )  # fmt: skip


def trainer_of(cls, config, tmp_path, *, online, **kw) -> Any:
    trainer = cls(
        model=llama(), args=tiny.arguments(config, tmp_path, **kw), train_dataset=tiny.pairs(2),
        processing_class=tiny_tokenizer(), peft_config=LoraConfig(**tiny.LORA),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    if kw.get("gradient_checkpointing"):
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trainer.precompute_ref_logps = not online
    trainer.first_step = None  # the cached values of these batches are made up
    trainer.training_step(trainer.model, batch_of(MIXES[0], online=online))  # the first settles how rows are scored
    return trainer


def batch_of(groups, *, online):
    width = max(p + max(rest) for p, *rest in groups)
    ids = torch.randint(5, 200, (2 * len(groups), width), generator=torch.Generator().manual_seed(0))
    attention, completion = torch.zeros_like(ids), torch.zeros_like(ids)
    for side in (0, 1):
        for i, (p, *rest) in enumerate(groups):
            row = side * len(groups) + i
            ids[row, :p] = ids[i, :p]
            attention[row, : p + rest[side]] = 1
            completion[row, p : p + rest[side]] = 1
    zeros = torch.zeros(len(groups))
    cached = {} if online else {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion} | cached


def check(model, run, groups, **kw):
    """Counted and predicted agree in total, and kind by kind when the sizes of the other kinds are zero."""
    with FlopCounter(model) as counter:
        run()
    size = Architecture.of(model)
    assert sum(counter.by_kind.values()) == counter.get_total_flops()
    assert step_flops(size, groups, **kw) == pytest.approx(counter.get_total_flops(), rel=0.02)
    for kind, counted in counter.by_kind.items():
        others = {field: 0 for other, fields in KINDS.items() if other != kind for field in fields}
        assert step_flops(size._replace(**others), groups, **kw) == pytest.approx(counted, rel=0.02), kind


@pytest.mark.parametrize("online", [False, True], ids=["cached", "online"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("sharing", ["on", "off"])
def test_predicted_flops_are_those_counted(tmp_path, sharing, checkpointing, online):
    trainer = trainer_of(
        DPOTrainer, DPOConfig, tmp_path, online=online, shared_prefix=sharing, gradient_checkpointing=checkpointing
    )
    for groups in MIXES:
        check(
            trainer.model, lambda g=groups: trainer.training_step(trainer.model, batch_of(g, online=online)), groups,
            shared=sharing == "on", checkpointing=checkpointing, reference_online=online,
        )  # fmt: skip


@pytest.mark.parametrize("online", [False, True], ids=["cached", "online"])
def test_trls_step_takes_three_products_of_the_head_on_all_positions(tmp_path, monkeypatch, online):
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 100)  # the vocabulary in slices
    trainer = trainer_of(TRLDPOTrainer, TRLDPOConfig, tmp_path, online=online)
    for groups in MIXES:
        check(
            trainer.model, lambda g=groups: trainer.training_step(trainer.model, batch_of(g, online=online)), groups,
            shared=False, checkpointing=False, reference_online=online, head_products=3, head_everywhere=True,
        )  # fmt: skip


@pytest.mark.parametrize("shared", [True, False], ids=["packed", "padded"])
def test_a_group_of_completions(shared):
    prompt, *answers = group = (60, 9, 14, 1, 20, 6)
    model = llama()
    add_fused_lm_head(model, outputs=("log_probs",))
    policy = get_peft_model(model, LoraConfig(**tiny.LORA))
    prepare(policy)
    ids = torch.randint(5, 200, (len(answers), prompt + max(answers)), generator=torch.Generator().manual_seed(0))
    ids[:, :prompt] = ids[0, :prompt]
    real = torch.arange(ids.shape[1]) < prompt + torch.tensor(answers)[:, None]
    labels = ids.where(real & (torch.arange(ids.shape[1]) >= prompt), -100)
    scorer: Any = SharedPrefixModel(policy) if shared else policy

    def passes():
        with fast_head():
            scored = scorer(input_ids=ids, attention_mask=real.long(), labels=labels, fused_lm_head=True)
        scored.log_probs.sum().backward()

    check(policy, passes, [group], shared=shared, checkpointing=False, reference_online=False)


def test_attention_counts_the_pairs_attended_to():
    q, k = torch.randn(2, 3, 5, 8, requires_grad=True), torch.randn(2, 3, 5, 8)
    mask = torch.tensor([[1, 1, 0, 0, 0]] * 5, dtype=torch.bool)[None, None]
    pair = 4 * 2 * 3 * 8  # FLOPs of one query and one key: two products, over the batch, heads and width
    assert count_flops(lambda: scaled_dot_product_attention(q, k, k)) == 25 * pair
    assert count_flops(lambda: scaled_dot_product_attention(q, k, k, is_causal=True)) == 15 * pair
    assert count_flops(lambda: scaled_dot_product_attention(q, k, k, attn_mask=mask)) == 10 * pair
    assert (
        count_flops(lambda: scaled_dot_product_attention(q, k, k, is_causal=True).sum().backward()) == 3.5 * 15 * pair
    )


def test_a_packed_pair_costs_less_and_a_group_of_eight_a_third():
    model = Architecture(linear=10**6, lora=2, first_linear=10, first_lora=1, layers=1, attention_width=1, head=0)
    kw = {"checkpointing": False, "reference_online": False}
    pair = [(256, 128, 128)]
    assert step_flops(model, pair, shared=False, **kw) / step_flops(model, pair, shared=True, **kw) > 1.45
    group = [(512, *[128] * 8)]
    assert step_flops(model, group, shared=False, **kw) / step_flops(model, group, shared=True, **kw) > 3
