"""The prompt of several answers is run once, and the tokens are those of the model's own `generate`."""

import contextlib

import pytest
import tiny
import torch
from groups import trained
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    LogitsProcessorList,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.sampling import prompt_cache
from align.sampling.generate import Decoding, generate
from align.sampling.prompt_cache import prompts_once
from align.trainers.online import shared_prompts

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128}  # fmt: skip
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, **TOKENS),
    "qwen2": Qwen2Config(**SHAPE, **TOKENS),
    "qwen3": Qwen3Config(**SHAPE, **TOKENS, head_dim=8),
    "mistral, sliding": MistralConfig(**SHAPE, **TOKENS, sliding_window=8),
    "gemma2, sliding": Gemma2Config(**SHAPE, **TOKENS, head_dim=8, sliding_window=8),
    "gemma3, sliding": Gemma3TextConfig(**SHAPE, **TOKENS, head_dim=8, sliding_window=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
}
LENGTHS, TIMES = (12, 20, 5), (3, 1, 2)
HOW = {
    "max_new_tokens": 24,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "output_scores": True,
    "return_dict_in_generate": True,
}


def made(config):
    set_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        weight.data.mul_(3 if weight.dim() > 1 else 1)  # a random model's answers hardly depend on the prompt
    return model


def rows(lengths=LENGTHS, times=TIMES):
    """Prompts padded on the left, each as often as said; the answers of one do not all stand together."""
    set_seed(0)
    width = max(lengths)
    prompts = [torch.cat([torch.zeros(width - n, dtype=torch.long), torch.randint(3, 64, (n,))]) for n in lengths]
    ids = torch.stack([prompt for prompt, n in zip(prompts, times, strict=True) for _ in range(n)])
    ids = ids[torch.arange(len(ids)).roll(1)]
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def counted(model):
    """The numbers of positions of each forward pass from here on."""
    seen = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs.get("input_ids", args[0] if args else None).numel()),
        with_kwargs=True,
    )
    return seen


def drawn(model, **how):
    set_seed(3)
    return model.generate(**rows(), generation_config=GenerationConfig(**HOW | how))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_draws_the_same_tokens(name):
    model = made(FAMILIES[name])
    for how in ({"do_sample": True, "top_k": 0}, {"do_sample": False}):
        expected = drawn(model, **how)
        seen = counted(model)
        with prompts_once(model):
            found = drawn(model, **how)
        assert torch.equal(found.sequences, expected.sequences)
        for one, other in zip(found.scores, expected.scores, strict=True):
            assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert seen[:2] == [3 * 19, 6]  # three prompts but for their last tokens, then those of the six answers


def test_a_model_with_more_than_keys_and_values_falls_back_by_name(caplog, monkeypatch):
    monkeypatch.setattr(prompt_cache, "_said", set())
    model = made(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8))
    expected = drawn(model, do_sample=True)
    with prompts_once(model):
        assert torch.equal(drawn(model, do_sample=True).sequences, expected.sequences)
        drawn(model, do_sample=True)
    said = [r.message for r in caplog.records if r.name == "align.sampling.prompt_cache"]
    assert said == [
        "sampling: every prompt is computed once per answer, because the state of LinearAttentionLayer is more than keys and values"
    ]


@pytest.mark.parametrize(
    ("asked", "how", "reason"),
    [
        (rows((1, 20), (2, 2)), {}, "a prompt has one token"),
        (rows(), {"num_beams": 2}, "the generation settings ask for beams or a cache of their own"),
        (rows() | {"pixel_values": torch.zeros(6)}, {}, r"the prompt is more than tokens (pixel_values)"),
    ],
)
def test_what_cannot_be_shared_is_said(asked, how, reason):
    config = GenerationConfig(**HOW | how)
    found = prompt_cache._unsuited(made(FAMILIES["llama"]), asked | {"generation_config": config})
    assert found == reason


def test_prompts_that_do_not_repeat_are_left_alone():
    model = made(FAMILIES["llama"])
    asked = rows(times=(1, 1, 1))
    assert prompt_cache.repeated_cache(model, model.generate, asked) is None
    same = {"input_ids": torch.full((2, 6), 5), "attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1], [1] * 6])}
    assert prompt_cache.repeated_cache(model, model.generate, same) is None  # the same ids, of which one is padding


def test_generate_is_put_back():
    model = made(FAMILIES["llama"])
    with prompts_once(model):
        pass
    assert "generate" not in vars(model)
    model.generate = mine = lambda **_: "mine"
    with prompts_once(model):
        assert model.generate(input_ids=torch.ones(1, 3), attention_mask=torch.ones(1, 3)) == "mine"
    assert model.generate is mine


def test_answers_of_one_seed_are_those_of_a_batch_of_one():
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).eval()
    model.lm_head.weight.data *= 20
    prompts, decoding = ["count to three", "say hello"], Decoding(max_new_tokens=12, seed=5)
    alone = generate(model, tokenizer, prompts, decoding, samples=4, batch_size=1)
    seen = counted(model)
    together = generate(model, tokenizer, prompts, decoding, samples=4, batch_size=8)
    assert [[a.completion_ids for a in answers] for answers in together] == [
        [a.completion_ids for a in answers] for answers in alone
    ]
    assert seen[1] == 8  # one token of each answer
    assert seen[0] == 2 * (max(len(answers[0].prompt_ids) for answers in together) - 1)


@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_trainers_run_the_prompt_of_a_group_once(tmp_path, monkeypatch, trainer, config):
    rows_of = {}
    repeated = prompt_cache.repeated_cache

    def watched(model, generate, asked):
        cache = repeated(model, generate, asked)
        rows_of.setdefault(mode, []).append(cache is not None and cache.layers[0].keys.shape[0])
        return cache

    monkeypatch.setattr(prompt_cache, "repeated_cache", watched)
    monkeypatch.setattr(
        shared_prompts, "two_uniforms", contextlib.nullcontext
    )  # the tokens of a run that shares nothing
    runs = {}
    for mode in ("auto", "off"):
        runs[mode] = trained(trainer, config, tmp_path / mode, shared_prefix=mode, max_steps=2)
    assert tiny.losses(runs["auto"], "reward") == tiny.losses(runs["off"], "reward")
    assert rows_of == {"auto": [8]}


def test_a_sharded_model_is_left_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(prompt_cache, "_said", set())
    monkeypatch.setattr("align.trainers.online.shared_prompts.sharded", lambda _: True)
    monkeypatch.setattr(prompt_cache, "repeated_cache", None)
    trained(GRPOTrainer, GRPOConfig, tmp_path, max_steps=1)
    assert "every prompt is computed once per answer, because the model is sharded" in caplog.text


def test_processors_see_whole_prompts():
    model = made(FAMILIES["llama"])
    widths = []

    def look(ids, scores):
        widths.append(ids.shape)
        return scores

    with prompts_once(model):
        model.generate(
            **rows(), generation_config=GenerationConfig(**HOW | {"max_new_tokens": 2}),
            logits_processor=LogitsProcessorList([look]),
        )  # fmt: skip
    assert widths == [(6, 20), (6, 21)]
