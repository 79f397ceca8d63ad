"""Tokens drawn by two uniform numbers have the law of the softmax, and the rest of `generate` is transformers'."""

import numpy as np
import pytest
import torch
from groups import trained
from scipy.stats import chisquare
from transformers import GenerationConfig

from align import GRPOConfig, GRPOTrainer
from align.errors import RunError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.sampling import drawing
from align.sampling.drawing import draw, two_uniforms
from align.sampling.prompt_cache import prompts_once

WIDE = 3 * drawing.BLOCK - 100  # the last block is not whole


def logits(seed=0, *, without=()):
    made = 2 * torch.randn(WIDE, generator=torch.Generator().manual_seed(seed))
    made[list(without)] = -torch.inf
    return made


def uniforms(monkeypatch, value):
    monkeypatch.setattr(drawing.torch, "rand", lambda *shape, device=None: torch.full(shape, value))


def test_tokens_have_the_law_of_the_softmax():
    rows = logits(without=range(40, 340))
    drawn = torch.cat([draw(rows.expand(5000, -1)) for _ in range(8)])
    counts, p = np.bincount(drawn, minlength=WIDE), rows.double().softmax(-1).numpy()
    assert counts[40:340].sum() == 0
    often = p * len(drawn) >= 5
    seen = [*counts[often], counts[~often].sum()]
    due = np.array([*p[often], p[~often].sum()]) * len(drawn)
    assert chisquare(seen, due * (sum(seen) / due.sum())).pvalue > 1e-4


def test_rows_are_drawn_apart_each_by_its_own_law():
    one, other = torch.full((2, WIDE), -torch.inf)
    one[[0, WIDE - 1]] = other[[5, 300]] = 0.0
    drawn = draw(torch.stack([one, other]).repeat(200, 1)).view(200, 2)
    assert [set(column.tolist()) for column in drawn.T] == [{0, WIDE - 1}, {5, 300}]
    assert len({tuple(pair) for pair in drawn.tolist()}) == 4


@pytest.mark.parametrize("value", [0.0, 1 - 2**-24, 1.0])  # 1: a product that was rounded up
def test_the_ends_of_the_uniform_law_draw_no_token_that_cannot_be(monkeypatch, value):
    uniforms(monkeypatch, value)
    last = drawing.BLOCK + 30
    for seed in range(20):
        rows = logits(seed, without=[*range(7), *range(last + 1, WIDE)])[None]
        assert draw(rows).item() == (7 if value == 0 else last)


def test_logits_that_are_not_finite_are_refused():
    for bad in (torch.nan, torch.inf):
        rows = logits()
        rows[3] = bad
        with pytest.raises(RunError, match="logits are not finite"):
            draw(rows[None])
    with pytest.raises(RunError, match="logits are not finite"):
        draw(torch.full((1, 9), -torch.inf))


@pytest.fixture(scope="module")
def asked():
    tokenizer = tiny_tokenizer()
    ids = torch.tensor([tokenizer("What is it?")["input_ids"]] * 64)
    return tiny_model(tokenizer).eval(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def config(**settings):
    return GenerationConfig(max_new_tokens=3, pad_token_id=0, eos_token_id=None, **settings)


@pytest.mark.parametrize("once", [False, True])
def test_warpers_apply_and_nothing_is_drawn_by_multinomial(asked, monkeypatch, once):
    model, inputs = asked
    likeliest = model(**inputs).logits[0, -1].topk(2).indices.tolist()
    monkeypatch.setattr(torch, "multinomial", None)
    with two_uniforms(model):
        if once:
            with prompts_once(model):
                made = model.generate(**inputs, generation_config=config(do_sample=True, top_k=2, temperature=5.0))
        else:
            made = model.generate(**inputs, generation_config=config(do_sample=True, top_k=2, temperature=5.0))
    assert set(made[:, -3].tolist()) == set(likeliest)
    assert "generate" not in vars(model)


def test_other_ways_of_generating_are_left_alone(asked, monkeypatch):
    model, inputs = asked
    greedy = model.generate(**inputs, generation_config=config())
    monkeypatch.setattr(drawing, "draw", None)
    with two_uniforms(model):
        assert torch.equal(model.generate(**inputs, generation_config=config()), greedy)
        told = model.generate(
            **inputs,
            generation_config=config(do_sample=True, top_k=0, output_scores=True, return_dict_in_generate=True),
        )
    assert torch.isfinite(told.scores[0]).all()


def test_a_trainer_samples_so_unless_it_is_to_be_trls(tmp_path, monkeypatch):
    multinomial, calls = torch.multinomial, []
    monkeypatch.setattr(torch, "multinomial", lambda *a, **k: calls.append(1) or multinomial(*a, **k))
    trained(GRPOTrainer, GRPOConfig, tmp_path / "a", shared_prefix="on")
    assert not calls
    trained(GRPOTrainer, GRPOConfig, tmp_path / "b", shared_prefix="off")
    assert calls
