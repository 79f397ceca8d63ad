"""The analytic cost of a step is the counted one."""

import pytest
import tiny
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer

from align import DPOConfig, DPOTrainer
from align.scoring.flops import Architecture, count_flops, step_flops
from align.tiny import tiny_tokenizer

MIXES = {"even": [(20, 9, 9)] * 2, "mixed": [(40, 5, 17), (3, 12, 1), (25, 8, 30)], "long prompt": [(150, 4, 6)]}


def batch_of(groups):
    width = max(p + max(rest) for p, *rest in groups)
    ids = torch.randint(5, 200, (2 * len(groups), width), generator=torch.Generator().manual_seed(0))
    attention, completion = torch.zeros_like(ids), torch.zeros_like(ids)
    for side in (0, 1):
        for i, (p, *rest) in enumerate(groups):
            row = side * len(groups) + i
            ids[row, :p] = ids[i, :p]
            attention[row, : p + rest[side]] = 1
            completion[row, p : p + rest[side]] = 1
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


def step(cls, config, tmp_path, groups, *, online=True, **kw):
    tokenizer = tiny_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512,
        )
    )  # fmt: skip
    trainer = cls(
        model=model, args=tiny.arguments(config, tmp_path, **kw), train_dataset=tiny.pairs(2),
        processing_class=tokenizer, peft_config=LoraConfig(**tiny.LORA),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    if kw.get("gradient_checkpointing"):
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trainer.precompute_ref_logps = not online
    batch = batch_of(groups)
    if not online:
        zeros = torch.zeros(len(groups))
        batch |= {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}
    trainer.training_step(trainer.model, dict(batch))  # the first settles how rows are scored
    return trainer, count_flops(lambda: trainer.training_step(trainer.model, dict(batch)))


@pytest.mark.parametrize("groups", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize(
    ("sharing", "checkpointing", "online"),
    [("on", False, False), ("on", False, True), ("on", True, True), ("off", False, False), ("off", True, True)],
)
def test_predicted_flops_are_those_counted(tmp_path, groups, sharing, checkpointing, online):
    trainer, counted = step(
        DPOTrainer, DPOConfig, tmp_path, groups,
        online=online, shared_prefix=sharing, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    predicted = step_flops(
        Architecture.of(trainer.model), groups,
        shared=sharing == "on", checkpointing=checkpointing, reference_online=online,
    )  # fmt: skip
    assert predicted == pytest.approx(counted, rel=0.02)


def test_trls_step_takes_three_products_of_the_head(tmp_path):
    groups = MIXES["mixed"]
    trainer, counted = step(TRLDPOTrainer, TRLDPOConfig, tmp_path, groups, online=False)
    rows = (
        2 * len(groups) * (max(p + max(rest) for p, *rest in groups) - 1)
    )  # on CPUs all positions go through the head
    predicted = step_flops(
        Architecture.of(trainer.model), groups,
        shared=False, checkpointing=False, reference_online=False, head_products=0,
    ) + 3 * 2 * Architecture.of(trainer.model).head * rows  # fmt: skip
    assert predicted == pytest.approx(counted, rel=0.02)


def test_a_packed_pair_costs_less_and_a_group_of_eight_a_third():
    model = Architecture(linear=10**6, lora=2, first_linear=10, first_lora=1, layers=1, attention_width=1, head=0)
    kw = {"checkpointing": False, "reference_online": False}
    pair = [(256, 128, 128)]
    assert step_flops(model, pair, shared=False, **kw) / step_flops(model, pair, shared=True, **kw) > 1.45
    group = [(512, *[128] * 8)]
    assert step_flops(model, group, shared=False, **kw) / step_flops(model, group, shared=True, **kw) > 3
