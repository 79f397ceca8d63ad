"""What determines log-probabilities: each part of it changes the identity, and nothing else does."""

import contextlib
import copy
import sys
from types import SimpleNamespace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import set_seed

from align.models.identity import (
    DIGESTS,
    adapter_digest,
    different,
    log_probability_identity,
    model_identity,
    same_identity,
    text_identity,
    weights_digest,
)
from align.models.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def model():
    return tiny_model(tiny_tokenizer())


def with_lora(model, **settings):
    set_seed(0)  # PEFT draws A from the global generator
    return get_peft_model(model, LoraConfig(**tiny.LORA | settings))


def moved(policy, part="lora_B"):
    """The policy after a change of its first weight with such a name."""
    next(p for n, p in policy.named_parameters() if part in n).data += 1
    return policy


def test_the_digest_of_a_base_is_the_same_under_lora(model):
    alone = weights_digest(model)
    assert weights_digest(with_lora(model)) == alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("which", [0, -1])
def test_one_changed_weight_changes_the_digest(model, dtype, which):
    before = weights_digest(model.to(dtype))
    list(model.parameters())[which].data.view(-1)[-1] += 1
    assert weights_digest(model) != before


def test_the_digest_tells_dtypes_and_shapes_apart():
    same_bytes = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(8, dtype=torch.bfloat16),
        torch.zeros(4, dtype=torch.int32),
    ]
    digests = {weights_digest(_holding(tensor)) for tensor in same_bytes}
    assert len(digests) == 4


@pytest.mark.parametrize(
    "tensor", [torch.tensor(3), torch.zeros(0), torch.arange(6.0).view(2, 3).t()], ids=["scalar", "empty", "strided"]
)
def test_any_tensor_has_a_digest(tensor):
    assert weights_digest(_holding(tensor)) == weights_digest(_holding(tensor.clone()))


def _holding(tensor):
    module = torch.nn.Module()
    module.register_buffer("weight", tensor)
    return module


def test_the_adapter_digest_follows_the_adapter_alone(model):
    policy = with_lora(model)
    adapter, base = adapter_digest(policy), weights_digest(policy)
    next(p for n, p in policy.named_parameters() if "lora_B" in n).data += 1
    assert adapter_digest(policy) != adapter
    assert weights_digest(policy) == base
    next(p for n, p in policy.named_parameters() if "lora_" not in n).data += 1
    moved = adapter_digest(policy)
    next(p for n, p in policy.named_parameters() if "lora_" not in n).data += 1
    assert adapter_digest(policy) == moved


# --- identities --------------------------------------------------------------------------------


def changes():
    """What changes a model's function, by the digest that has to tell."""

    def scale(policy):
        for part in policy.modules():
            if isinstance(getattr(part, "scaling", None), dict):
                part.scaling["default"] *= 8
        return policy

    def config(name, value):
        def change(policy):
            setattr(policy.get_base_model().config, name, value)
            return policy

        return change

    return {
        "a weight": ("digest", lambda policy: moved(policy, "embed_tokens")),
        "rms_norm_eps": ("config_digest", config("rms_norm_eps", 0.1)),
        "rope": ("config_digest", config("rope_parameters", {"rope_type": "default", "rope_theta": 50.0})),
        "a factor": ("adapter_digest", moved),
        "the scale": ("scale_digest", scale),
    }


@pytest.mark.parametrize("what", changes())
def test_what_changes_the_function_changes_its_own_digest(model, what):
    digest, change = changes()[what]
    before = model_identity(with_lora(copy.deepcopy(model)))
    after = model_identity(change(with_lora(copy.deepcopy(model))))
    assert set(before) == set(after) == set(DIGESTS)
    assert different(before, after) == [DIGESTS[digest]]


def test_adapters_that_are_off_do_not_count(model):
    alone = model_identity(model)
    policy = moved(with_lora(copy.deepcopy(model)))
    with policy.disable_adapter():
        assert model_identity(policy) == alone
    assert model_identity(policy) != alone


def test_the_name_of_an_adapter_is_not_part_of_it(model):
    policy = moved(with_lora(model))
    policy.add_adapter("ref", policy.peft_config["default"])
    state = policy.state_dict()
    policy.load_state_dict(
        {n.replace(".default.", ".ref."): t for n, t in state.items() if ".default." in n}, strict=False
    )
    mine = model_identity(policy)
    policy.set_adapter("ref")
    assert model_identity(policy) == mine
    moved(policy, "lora_B.ref")
    assert different(mine, model_identity(policy)) == ["adapter weights"]


def test_a_trained_copy_of_a_module_is_the_adapters_and_not_the_bases(model):
    alone = model_identity(model)
    policy = with_lora(model, modules_to_save=["lm_head"])
    before = model_identity(policy)
    moved(policy, "modules_to_save")
    assert different(before, model_identity(policy)) == ["adapter weights"]
    with policy.disable_adapter():
        assert model_identity(policy) == alone


@pytest.mark.parametrize(("name", "value"), [("_name_or_path", "there"), ("use_cache", False), ("eos_token_id", 7)])
def test_what_training_and_saving_alter_is_no_identity(model, name, value):
    before = model_identity(model)
    setattr(model.config, name, value)
    assert model_identity(model) == before


def test_how_log_probabilities_are_computed_counts(model):
    plain = log_probability_identity(model)
    packed = copy.deepcopy(model)
    packed.set_attn_implementation("eager")
    packed = log_probability_identity(packed)
    mixed = log_probability_identity(model, mixed_precision="bf16")
    half = log_probability_identity(copy.deepcopy(model).to(torch.bfloat16))
    assert len({str(each) for each in (plain, packed, mixed, half)}) == 4


def test_records_are_compared_by_what_both_have(model):
    found = {"kind": "base", "model": "here"} | model_identity(model)
    assert same_identity({"kind": "base", "model": "there", "digest": found["digest"]}, found)
    assert not same_identity({"kind": "adapter", "digest": found["digest"]}, found)
    assert not same_identity(found | {"config_digest": "0"}, found)


def test_a_tokenizers_digest_does_not_depend_on_its_last_call():
    tokenizer = tiny_tokenizer()
    used = copy.deepcopy(tokenizer)
    used(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert text_identity(used) == text_identity(tokenizer)


def test_weights_that_deepspeed_spread_over_processes_are_gathered(model, monkeypatch):
    """ZeRO-3 leaves empty tensors in the model: their digest would be that of every model."""
    whole = weights_digest(model)
    hidden = {}
    for name, parameter in model.named_parameters():
        hidden[name], parameter.ds_id = parameter.data, len(hidden)
        parameter.data = torch.empty(0)

    @contextlib.contextmanager
    def gathered(parameters):
        names = {id(p): n for n, p in model.named_parameters()}
        for parameter in parameters:
            parameter.data = hidden[names[id(parameter)]]
        yield
        for parameter in parameters:
            parameter.data = torch.empty(0)

    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(zero=SimpleNamespace(GatheredParameters=gathered)))
    assert weights_digest(model) == whole
