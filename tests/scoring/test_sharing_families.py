"""Which models may score packed rows, and that a wrong one is found out."""

import packing
import pytest
import torch
from packing import LEFT, RIGHT, built, compare, padded, random, skip_the_prefix
from peft import PromptTuningConfig, get_peft_model
from trl.trainer.utils import disable_dropout_in_model

from align.scoring import attention, shared_prefix
from align.scoring.plan import Group, make_plan
from align.scoring.shared_prefix import NotEquivalent, SharedPrefixModel, check_equivalent, prepare, unsupported

SUPPORTED = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "gemma": {}, "phi3": {}, "gpt_neox": {}, "gpt2": {"attn_pdrop": 0.0}, "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "mistral": {"sliding_window": None}, "mixtral": {"sliding_window": 7}, "gemma3_text": {"sliding_window": 7},
}  # fmt: skip


@pytest.mark.parametrize("family", SUPPORTED)
def test_families_score_alike(family):
    model = built(family, **SUPPORTED[family])
    assert unsupported(model, max_length=7) is None
    assert prepare(model) == "sdpa"
    with torch.no_grad():
        compare(model, RIGHT, gradient=False)
    with pytest.raises(NotEquivalent):
        check_equivalent(model, RIGHT, "causal")


LAYERS = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 6}
REFUSED = [
    ("mistral", {"sliding_window": 6}, "sliding window of 6, and rows have up to 7 tokens"),
    ("gemma3_text", LAYERS, "sliding window of 6"),
    ("qwen2", LAYERS | {"use_sliding_window": True}, "sliding window of 6"),
    ("bloom", {"hidden_size": 16}, "ALiBi"),
    ("mpt", {}, "ALiBi"),
    ("falcon", {"alibi": True}, "ALiBi"),
    ("gemma2", {"sliding_window": 4096}, "soft-caps attention scores"),
    ("llama", {"attention_dropout": 0.1}, "attention dropout 0.1"),
    ("mamba", {}, "carry state along the row"),
    ("jamba", {"mamba_dt_rank": 2, "mamba_d_state": 4, "num_experts": 2}, "carry state along the row"),
    ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"]}, "along the row (linear_attention)"),
    ("lfm2", {"layer_types": ["conv", "full_attention"]}, "along the row (conv)"),
    ("gptj", {"rotary_dim": 4}, "does not use transformers' attention interface"),
]


@pytest.mark.parametrize(("family", "settings", "reason"), REFUSED)
def test_what_cannot_share_prompts_is_refused_by_name(family, settings, reason, monkeypatch):
    if family == "falcon":
        monkeypatch.delitem(packing.SIZES, "head_dim")
    model = built(family, **settings)
    found = unsupported(model, max_length=7)
    assert f"{type(model).__name__} ({model.config.model_type})" in found
    assert reason in found


def test_windows_that_no_row_outgrows_are_no_hindrance():
    model = built("mistral", sliding_window=6)
    assert unsupported(model, max_length=6) is None
    assert "rows have up to any number of tokens" in unsupported(model, max_length=None)
    assert unsupported(built("qwen2", sliding_window=6, use_sliding_window=False), max_length=None) is None


def test_a_chosen_implementation_and_virtual_tokens_are_refused():
    model = built()
    model.config._attn_implementation_internal = "flash_attention_2"
    assert unsupported(model, max_length=7) == (
        "attn_implementation='flash_attention_2' was asked for; packed rows need 'sdpa' or 'eager'"
    )
    virtual = get_peft_model(built(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    assert unsupported(virtual, max_length=7) == "prompt-learning adapters put virtual tokens in front of each row"
    with pytest.raises(TypeError, match="expected a transformers model, got Linear"):
        unsupported(torch.nn.Linear(1, 1), max_length=7)


def test_what_changes_attention_scores_stops_a_packed_row():
    q, packed = random(1, 2, 4, 4), attention.Packed("cascade", (Group(0, 2, (2,)),))
    for extra in ({"softcap": 30.0}, {"s_aux": q}, {"position_bias": q}, {"dropout": 0.1}):
        with pytest.raises(NotImplementedError, match=f"attention with {next(iter(extra))} on a packed row"):
            attention.shared_prefix_attention(torch.nn.Identity(), q, q, q, None, packed=packed, **extra)
    with pytest.raises(TypeError, match="cannot score packed rows with \\['pixel_values'\\]"):
        SharedPrefixModel(built())(**LEFT, fused_lm_head=True, pixel_values=q)


# the check


def leak(monkeypatch):
    def mask(plan):
        index = torch.arange(len(plan.group))
        return ((index[:, None] >= index) & (plan.group[:, None] == plan.group))[None, None]

    monkeypatch.setattr(attention, "dense_mask", mask)
    return "dense"


def run_on(monkeypatch):
    def plan(*a, **kw):
        made = make_plan(*a, **kw)
        made.position_ids.copy_(torch.arange(made.position_ids.numel())[None])
        return made

    monkeypatch.setattr(shared_prefix, "make_plan", plan)
    return "dense"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrong", [leak, run_on, skip_the_prefix])
def test_the_check_refuses_what_is_wrong(monkeypatch, wrong, dtype):
    model = built().to(dtype)
    prepare(model)
    assert check_equivalent(model, RIGHT) < 1e-5
    with pytest.raises(NotEquivalent, match="nats per token"):
        check_equivalent(model, RIGHT, wrong(monkeypatch))


@pytest.mark.parametrize("wrong", [leak, skip_the_prefix])
def test_where_rounding_is_coarse_the_check_still_refuses_a_wrong_mask(monkeypatch, wrong):
    model = built()
    prepare(model)
    pair = padded([([5, 6, 7, 8], [9, 10, 11]), ([5, 6, 7, 8], [15, 16, 17, 18])])
    assert check_equivalent(model, pair, exact=False) < 1e-5
    with pytest.raises(NotEquivalent, match="nats per token"):
        check_equivalent(model, pair, wrong(monkeypatch), exact=False)


def test_the_check_takes_coarse_rounding_only_where_it_cannot_be_avoided():
    model = built()
    prepare(model)

    def rounded(**inputs):
        outputs = model(**inputs)
        noise = 5e-3 * random(*outputs.log_probs.shape)
        return type(outputs)(log_probs=outputs.log_probs + noise)

    with pytest.raises(NotEquivalent):
        check_equivalent(rounded, RIGHT)
    assert check_equivalent(rounded, RIGHT, exact=False) > 1e-3
    nothing = RIGHT | {"labels": torch.full_like(RIGHT["labels"], -100)}
    assert check_equivalent(model, nothing) == 0.0


def test_models_with_layer_norms_pass_in_half_precision():
    model = built("gpt_neox").bfloat16()
    prepare(model)
    assert check_equivalent(model, RIGHT) < 1e-3


def test_dropout_of_attention_counts_as_it_is_now():
    """GPT-2 has it as a module, which `disable_dropout` sets to zero."""
    model = built("gpt2", attn_pdrop=0.1)
    assert unsupported(model, max_length=7) == "GPT2LMHeadModel (gpt2) has attention dropout 0.1"
    disable_dropout_in_model(model)
    assert unsupported(model, max_length=7) is None


def test_a_mask_of_the_models_own_stops_a_cascade():
    q, packed = random(1, 2, 4, 4), attention.Packed("cascade", (Group(0, 2, (2,)),))
    with pytest.raises(NotImplementedError, match="a mask of the model's own"):
        attention.shared_prefix_attention(torch.nn.Identity(), q, q, q, torch.ones(1, 1, 4, 4), packed=packed)
