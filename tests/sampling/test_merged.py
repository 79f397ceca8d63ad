"""Adapters are part of the base's weights while answers are sampled, and these are afterwards what they were."""

import contextlib

import pytest
import torch
from groups import group_trainer
from peft import LoraConfig, OFTConfig, PromptTuningConfig, get_peft_model
from torch.testing import assert_close

from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.sampling.generate import Decoding, generate
from align.sampling.merged import adapters_merged, merged_one_by_one

IDS = torch.arange(3, 15)[None]


def adapted(config=None, dtype=torch.float32):
    torch.random.default_generator.manual_seed(0)
    model = get_peft_model(
        tiny_model(tiny_tokenizer()).to(dtype), config or LoraConfig(r=4, target_modules="all-linear")
    )
    for name, own in model.named_parameters():
        if model.prefix in name:
            torch.nn.init.normal_(own, std=0.3)
    return model.eval()


def weights(model):
    return {name: own.detach().clone() for name, own in model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def counted(model):
    """How often an adapter's own matrix is used."""
    seen = []
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules="all-linear"),
        LoraConfig(r=4, target_modules="all-linear", use_dora=True),
        LoraConfig(r=4, target_modules=["q_proj"]),
        OFTConfig(oft_block_size=4, target_modules=["q_proj", "v_proj"]),
    ],
    ids=["lora", "dora", "some layers", "oft"],
)
@torch.no_grad()
def test_the_model_says_the_same_and_its_weights_are_restored_to_the_bit(config):
    model = adapted(config)
    before, expected = weights(model), model(input_ids=IDS).logits
    with adapters_merged(model):
        assert not same(before, weights(model))
        assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert same(before, weights(model))
    assert torch.equal(model(input_ids=IDS).logits, expected)


@torch.no_grad()
def test_no_product_of_the_adapter_is_left():
    model = adapted()
    seen = counted(model)
    with adapters_merged(model):
        model(input_ids=IDS)
    assert not seen
    model(input_ids=IDS)
    assert seen


def test_answers_are_sampled_without_a_product_of_the_adapter():
    model = adapted()
    prompts, decoding = ["count to three", "say hello"], Decoding(max_new_tokens=8)
    with model.disable_adapter():
        untrained = generate(model, tiny_tokenizer(), prompts, decoding)
    seen = counted(model)
    assert generate(model, tiny_tokenizer(), prompts, decoding) != untrained
    assert not seen


@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_trainers_sample_without_a_product_of_the_adapter(tmp_path, trainer, config):
    made = group_trainer(trainer, config, tmp_path, max_steps=2)
    seen, sampling = counted(made.model), []
    sample = made._generate_single_turn

    def watched(*args, **kwargs):
        before = len(seen)
        ids = sample(*args, **kwargs)
        sampling.append(len(seen) - before)
        return ids

    made._generate_single_turn = watched
    before = weights(made.model)
    made.train()
    assert sampling == [0]
    assert seen  # the loss has them
    after = weights(made.model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [
        n for n in before if "lora_" in n
    ]


def test_weights_are_restored_after_an_error():
    model = adapted()
    before = weights(model)
    with contextlib.suppress(KeyError), adapters_merged(model):
        raise KeyError
    assert same(before, weights(model))


@torch.no_grad()
def test_only_active_adapters_are_merged():
    model = adapted()
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    for active in ("default", "other", ["default", "other"]):
        model.base_model.set_adapter(active)
        expected = model(input_ids=IDS).logits
        with adapters_merged(model):
            assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["bfloat16", "tied", "off", "prompt tuning", "no adapter", "generate of another"])
def test_what_cannot_be_merged_stays_as_it_is(case):
    """An adapter that is off, or a base of which rounding would lose the adapter."""
    inside = contextlib.nullcontext()
    if case == "bfloat16":
        model = adapted(dtype=torch.bfloat16)
    elif case == "tied":
        model = tiny_model(tiny_tokenizer())
        model.lm_head.weight = model.model.embed_tokens.weight
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    elif case == "prompt tuning":
        model = get_peft_model(tiny_model(tiny_tokenizer()), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=2))
    elif case == "no adapter":
        model = tiny_model(tiny_tokenizer())
    else:
        model = adapted()
        inside = model.disable_adapter() if case == "off" else inside
        if case == "generate of another":
            model.generate = lambda: None
    before = weights(model)
    with inside, adapters_merged(model):
        assert same(before, weights(model))


def test_vllm_is_sent_merged_weights_and_the_base_stays_what_it_is():
    """TRL merges all, sends all and subtracts what it added, which leaves rounding in the base: in bfloat16 most of it."""
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted(dtype=dtype)
        before = weights(model)

        def named(model=model):
            model.merge_adapter()
            for name, own in model.named_parameters():
                yield name, own.data
            model.unmerge_adapter()

        expected = {name: own.clone() for name, own in named()}
        drifted = weights(model)
        with torch.no_grad():
            for name, own in model.named_parameters():
                own.copy_(before[name])
        sent = dict(merged_one_by_one(model, named))
        assert list(sent) == list(expected)
        assert same(sent, expected)
        assert same(before, weights(model))
        assert not same(before, drifted)
        assert "merge_adapter" not in vars(model)
