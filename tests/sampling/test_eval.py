"""Tokens of pairs, their log-probabilities, and evaluating a run."""

import copy
import math

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from numpy.testing import assert_array_equal
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from align import DPOConfig, DPOTrainer
from align.models.tiny import tiny_model
from align.sampling.generate import generate
from align.scoring.completions import prompt_ids
from eval import Decoding, PairScores, completion_logps, ranking_estimates, rankings, sampled_kl
from eval.pairs.logps import completion_ids, pair_ids

PROMPTS = ["what", "is the sky", "a prompt longer than the others are", [{"role": "user", "content": "hi"}]]


@pytest.fixture(scope="module")
def sequences(tokenizer):
    rows = [(p, c) for p, *completions in tiny.ROWS for c in completions]
    return [completion_ids(tokenizer, prompt, completion) for prompt, completion in rows]


def rng(seed=0):
    return np.random.default_rng(seed)


# --- scoring -----------------------------------------------------------------------------------


def direct(model, prompt, completion, temperature=1.0):
    """One sequence, all logits, no padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
    logps = (logits.double() / temperature).log_softmax(-1)
    start = len(prompt) - 1
    return torch.stack([logps[start + t, token] for t, token in enumerate(completion)]).float()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logps_are_those_of_the_full_softmax(model, tokenizer, sequences, batch_size, temperature):
    got = completion_logps(
        model, sequences, pad_token_id=tokenizer.pad_token_id, batch_size=batch_size, temperature=temperature
    )
    for row, (prompt, completion) in zip(got, sequences, strict=True):
        assert_close(row, direct(model, prompt, completion, temperature), atol=1e-5, rtol=1e-5)


def test_logps_come_back_in_the_order_given(model, sequences):
    forward = completion_logps(model, sequences, pad_token_id=0, batch_size=4)
    back = completion_logps(model, sequences[::-1], pad_token_id=0, batch_size=4)[::-1]
    for a, b in zip(forward, back, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_what_pads_does_not_matter(model, sequences):
    a, b = (completion_logps(model, sequences, pad_token_id=pad, batch_size=8) for pad in (0, 17))
    for x, y in zip(a, b, strict=True):
        assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_the_same_sequence_has_the_same_value_in_every_place_and_is_scored_once(model, sequences, monkeypatch):
    """In other batches, other padding would round otherwise; what they are padded with shows which rows were scored."""
    n, again = len(sequences), [pair for pair in sequences for _ in range(2)]
    scored, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda **kw: scored.append(len(kw["input_ids"])) or forward(**kw))
    rows = completion_logps(model, [*sequences, *again], pad_token_id=0, batch_size=3)
    assert sum(scored) == len({(tuple(prompt), tuple(completion)) for prompt, completion in sequences})
    for first, second, third in zip(rows[:n], rows[n::2], rows[n + 1 :: 2], strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


def test_a_sequence_without_a_prompt_is_refused(model):
    with pytest.raises(ValueError, match="at least one prompt token"):
        completion_logps(model, [([], [5])], pad_token_id=0)


def as_strings(rows):
    return Dataset.from_list([{"prompt": p, "chosen": f" {c}", "rejected": f" {r}"} for p, c, r in rows])


@pytest.mark.parametrize(
    "data",
    [tiny.pairs(), as_strings(tiny.ROWS), as_strings([("a", "b<|end|>", "c")] * 2)],
    ids=["messages", "strings", "ended"],
)
def test_pairs_are_split_as_trl_splits_them(tokenizer, tmp_path, data):
    trained_on = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, data=data).train_dataset
    assert len(trained_on) == len(data)
    for row, theirs in zip(data, trained_on, strict=True):
        ours = pair_ids(tokenizer, row["prompt"], row["chosen"], row["rejected"])
        assert ours == [(theirs["prompt_ids"], theirs[f"{side}_ids"]) for side in ("chosen", "rejected")]


def test_both_answers_follow_the_same_context_where_tokens_merge():
    """`b` merges into the prompt's last token before "b" and not before "c"; the split moves in front of it in both."""
    core = Tokenizer(models.BPE(vocab={"<e>": 0, "x": 1, "a": 2, "b": 3, "c": 4, "ab": 5}, merges=[("a", "b")]))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    merging = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>", pad_token="<e>")
    assert completion_ids(merging, "x a", "b") == ([1], [5, 0])
    assert completion_ids(merging, "x a", "c") == ([1, 2], [4, 0])
    assert pair_ids(merging, "x a", "b", "c") == [([1], [5, 0]), ([1], [2, 4, 0])]
    assert completion_ids(merging, "a", "b<e>") == ([5], [0])  # the first token is never predicted


def test_an_answer_that_leaves_no_token_is_refused(tokenizer):
    silent = copy.deepcopy(tokenizer)
    silent.chat_template = "{{ messages[0]['content'] }}"
    messages = tiny.pairs()[0]
    with pytest.raises(ValueError, match="no token of the completion is left after the prompt"):
        completion_ids(silent, messages["prompt"], messages["chosen"])


# --- answers -----------------------------------------------------------------------------------


def answers(model, tokenizer, prompts, **kw):
    settings = {"max_new_tokens": 12, "seed": 0} | kw
    batch = settings.pop("batch_size", 2)
    samples = settings.pop("samples", 1)
    rows = generate(model, tokenizer, prompts, Decoding(**settings), batch_size=batch, samples=samples)
    return [[answer.completion_ids for answer in row] for row in rows]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batching_changes_no_answer(model, tokenizer, batch_size):
    assert answers(model, tokenizer, PROMPTS, batch_size=batch_size, samples=2) == answers(
        model, tokenizer, PROMPTS, samples=2
    )


def test_other_prompts_change_no_answer(model, tokenizer):
    alone = answers(model, tokenizer, PROMPTS[:1])
    assert answers(model, tokenizer, [*PROMPTS[1:], PROMPTS[0]], batch_size=4)[-1] == alone[0]


def test_another_seed_or_sample_is_another_answer(model, tokenizer):
    first, again, other = (answers(model, tokenizer, PROMPTS[:1], samples=2, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert len({tuple(ids) for ids in first + other}) == 4
    assert answers(model, tokenizer, PROMPTS[:1])[0] == first[:1]


def test_no_temperature_is_greedy(model, tokenizer):
    for prompt in PROMPTS:
        ids = prompt_ids(tokenizer, prompt)
        expected = model.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=12,
            do_sample=False, pad_token_id=0, eos_token_id=tokenizer.eos_token_id,
        )[0, len(ids) :].tolist()  # fmt: skip
        assert answers(model, tokenizer, [prompt], temperature=0.0) == [[expected]]
    assert answers(model, tokenizer, PROMPTS, temperature=0.0, seed=0) == answers(
        model, tokenizer, PROMPTS, temperature=0.0, seed=1
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_tokens_follow_the_softmax(model, tokenizer, temperature):
    """1,000 draws: every token's share within 4 standard errors of its probability, and Pearson's X² not extreme."""
    n, ids = 1000, prompt_ids(tokenizer, "the sky")
    with torch.no_grad():
        p = (model(input_ids=torch.tensor([ids])).logits[0, -1] / temperature).softmax(-1).double().numpy()
    drawn = answers(model, tokenizer, ["the sky"], max_new_tokens=1, samples=n, batch_size=n, temperature=temperature)[
        0
    ]
    counts = np.bincount([row[0] for row in drawn], minlength=len(p))
    common = p * n >= 5
    assert common.sum() > 3
    assert (np.abs(counts / n - p) <= 4 * np.sqrt(p * (1 - p) / n) + 2 / n).all()
    x2 = ((counts - p * n) ** 2 / (p * n))[common].sum()
    assert x2 < common.sum() + 4 * math.sqrt(2 * common.sum())


def test_an_answer_ends_with_its_end_of_sequence(tokenizer):
    ending = tiny_model(tokenizer).eval()
    ending.lm_head.weight.data.zero_()  # a flat softmax: the end comes by chance, about every 261 tokens
    rows = generate(ending, tokenizer, ["a"], Decoding(120), samples=20, batch_size=20)[0]
    assert {answer.finished for answer in rows} == {True, False}
    for answer in rows:
        assert answer.completion_ids.count(tokenizer.eos_token_id) == answer.finished
        assert (answer.completion_ids[-1] == tokenizer.eos_token_id) == answer.finished
        assert answer.finished or len(answer.completion_ids) == 120
        assert "<|end|>" not in answer.text


def test_the_models_own_generation_settings_do_not_apply(model, tokenizer):
    """A repetition penalty would make answers draws from another distribution than the one that is scored."""
    opinionated = copy.deepcopy(model)
    opinionated.generation_config.repetition_penalty = 9.0
    opinionated.generation_config.no_repeat_ngram_size = 1
    own = opinionated.generation_config
    assert answers(opinionated, tokenizer, PROMPTS) == answers(model, tokenizer, PROMPTS)
    policy = get_peft_model(opinionated, LoraConfig(**tiny.LORA)).eval()
    assert answers(policy, tokenizer, PROMPTS) == answers(model, tokenizer, PROMPTS)
    assert opinionated.generation_config is own


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -0.1}, "temperature must not be negative, got -0.1"),
    ],
)
def test_decoding_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)


# --- rankings ----------------------------------------------------------------------------------

SCORES = PairScores(
    chosen=np.array([-4.0, -6.0, -3.0, -8.0]),
    rejected=np.array([-5.0, -6.0, -2.0, -9.0]),
    ref_chosen=np.array([-4.0, -7.0, -3.0, -5.0]),
    ref_rejected=np.array([-6.0, -6.0, -2.0, -9.0]),
    chosen_tokens=np.array([2.0, 3.0, 3.0, 4.0]),
    rejected_tokens=np.array([5.0, 2.0, 2.0, 4.0]),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("logp", [1, 0.5, 0, 1]),  # -4 > -5, -6 = -6, -3 < -2, -8 > -9
        ("mean_logp", [0, 1, 0.5, 1]),  # -2 < -1, -2 > -3, -1 = -1, -2 > -2.25
        ("implicit_reward", [0, 1, 0.5, 0]),  # 0 < 1, 1 > 0, 0 = 0, -3 < 0
        ("longer_wins", [0, 1, 1, 0.5]),
    ],
)
def test_rankings_by_hand(name, expected):
    assert_array_equal(rankings(SCORES)[name], expected)
    estimate = ranking_estimates(SCORES)[f"ranking_accuracy/{name}"]
    assert (estimate.value, estimate.n) == (np.mean(expected), 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ref_ranking_accuracy/logp", 0.5),  # 1 0 0 1
        ("ref_ranking_accuracy/mean_logp", 0.625),  # -2 < -1.2, -7/3 > -3, -1 = -1, -1.25 > -2.25
        ("log_ratio/chosen", -0.5),  # 0 1 0 -3
        ("log_ratio/rejected", 0.25),  # 1 0 0 0
        ("logps/chosen", -5.25),
        ("logps/rejected", -5.5),
    ],
)
def test_estimates_by_hand(name, expected):
    assert ranking_estimates(SCORES)[name].value == expected


# --- divergence --------------------------------------------------------------------------------


def test_sampled_kl_by_hand():
    """Per answer 1 - 0.5 + 0.25 = 0.75 and -0.25; the mean is 0.25, and t with one degree of freedom reaches 6.35 from it."""
    policy = [torch.tensor([-1.0, -1.5, -2.0]), torch.tensor([-1.0])]
    ref = [torch.tensor([-2.0, -1.0, -2.25]), torch.tensor([-0.75])]
    assert sampled_kl(policy, ref) == (0.25, 0.0, pytest.approx(6.603, abs=1e-3), 2)
    with pytest.raises(ValueError, match="zip"):
        sampled_kl(policy, ref[:1])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_kl_finds_the_exact_one(model, tokenizer, temperature):
    """One-token answers, so that KL(π‖π_ref) is a sum over the vocabulary; 99.9% interval from 2,000 answers."""
    policy = copy.deepcopy(model)
    noise = torch.randn(policy.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    policy.lm_head.weight.data += 0.3 * noise
    ids = prompt_ids(tokenizer, "the sky")
    with torch.no_grad():
        p, q = (
            (m(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature).log_softmax(-1)
            for m in (policy, model)
        )
    exact = float((p.exp() * (p - q)).sum())
    drawn = answers(
        policy, tokenizer, ["the sky"], max_new_tokens=1, samples=2000, batch_size=1000, temperature=temperature
    )[0]
    logps = [
        completion_logps(m, [(ids, c) for c in drawn], pad_token_id=0, batch_size=500, temperature=temperature)
        for m in (policy, model)
    ]
    got = sampled_kl(*logps)
    assert exact > 0.2
    margin = (got.high - got.low) / 2 * 3.29 / 1.96
    assert got.value == pytest.approx(exact, abs=margin)
    assert margin < exact / 2
