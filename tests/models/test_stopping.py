"""An answer ends at every token that its model, its tokenizer or its template ends answers with, wherever it is sampled."""

import copy

import pytest
import tiny
import torch
from groups import group_trainer
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig
from trl import ModelConfig

from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.errors import RunError
from align.models.stopping import named_stop_ids, stop_ids, turn_end
from align.models.tiny import tiny_model, tiny_tokenizer
from align.models.use import Use
from align.sampling.generate import Decoding, Job, generate
from align.sampling.store import answer_settings
from align.sampling.vllm_engine import VLLM

PAD, END, SYSTEM, USER, ASSISTANT = range(5)


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def model(tokenizer):
    """Says one token for ever: the user's."""
    made = tiny_model(tokenizer).eval()
    made.lm_head = torch.nn.Linear(32, len(tokenizer))
    made.lm_head.weight.data.zero_()
    made.lm_head.bias.data.copy_(20.0 * (torch.arange(len(tokenizer)) == USER))
    return made


def test_every_place_counts_once_and_none_is_made_up(tokenizer, model):
    config, tokens = model.config, tokenizer
    assert named_stop_ids(tokens, config, None) == [END]
    assert named_stop_ids(tokens, config, GenerationConfig(eos_token_id=USER)) == [END, USER]
    assert named_stop_ids(tokens, config, GenerationConfig(eos_token_id=[USER, END, -1])) == [END, USER]
    config.eos_token_id = [ASSISTANT, 100]  # 100 is a letter: the default of a class, say
    assert named_stop_ids(tokens, config, GenerationConfig(eos_token_id=77)) == [END, 77, ASSISTANT]


def test_a_tokenizer_without_end_of_sequence_leaves_the_others(tokenizer, model):
    tokenizer.eos_token = None
    model.config.eos_token_id = None
    assert named_stop_ids(tokenizer, model.config, None) == []
    assert stop_ids(tokenizer, model) == [END]  # by the template and by the generation settings
    tokenizer.chat_template = None
    model.generation_config = GenerationConfig()
    assert stop_ids(tokenizer, model) == []
    [[answer]] = generate(model, tokenizer, ["a"], Decoding(5))
    assert (len(answer.completion_ids), answer.finished) == (5, False)


@pytest.mark.parametrize("wrong", ["x", [0, None], True, [[1]]])
def test_what_is_no_token_id_is_named(tokenizer, model, wrong):
    settings = GenerationConfig()
    settings.eos_token_id = wrong
    with pytest.raises(RunError, match=r"generation_config: eos_token_id holds .*no token id; mend the file"):
        named_stop_ids(tokenizer, model.config, settings)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("<|end|>", END),
        ("\n<|system|>\n<|end|>", SYSTEM),
        ("", None),
        (" bye", None),
        ("{{ raise_exception('no') }}", None),
    ],
)
def test_a_template_ends_a_turn_with_its_first_special_token(tokenizer, end, expected):
    tokenizer.chat_template = (
        "{% for message in messages %}<|" + "{{ message['role'] }}|>{{ message['content'] }}" + end + "{% endfor %}"
    )
    assert turn_end(tokenizer) == expected
    tokenizer.chat_template = None
    assert turn_end(tokenizer) is None


@pytest.mark.parametrize("place", ["generation", "config", "template"])
def test_sampling_stops_and_says_finished(tokenizer, model, place):
    before = generate(model, tokenizer, ["a"], Decoding(6, temperature=0.0))[0][0]
    assert (before.completion_ids, before.finished) == ([USER] * 6, False)
    if place == "generation":
        model.generation_config.eos_token_id = [END, USER]
    elif place == "config":
        model.config.eos_token_id = [END, USER]
    else:
        tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|user|>")
    answer = generate(model, tokenizer, ["a"], Decoding(6, temperature=0.0))[0][0]
    assert (answer.completion_ids, answer.finished) == ([USER], True)


def test_stored_answers_are_of_their_stops_and_of_the_end_of_sequence_alone_as_ever(tokenizer, model):
    assert "stops" not in answer_settings(model, tokenizer, Decoding())
    model.generation_config.eos_token_id = [END, USER]
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(**tiny.LORA))
    assert [answer_settings(each, tokenizer, Decoding())["stops"] for each in (model, adapted)] == [[END, USER]] * 2


def test_vllm_is_asked_for_all(tokenizer, model):
    model.generation_config.eos_token_id = [END, USER]
    use = Use(model, ModelConfig(model_name_or_path="tiny-random"))
    asked = VLLM._asked(use, stop_ids(tokenizer, model), Decoding(), [[5]], [[Job(0, 0)]])
    assert asked["sampling"]["stop_token_ids"] == [END, USER]


@pytest.mark.parametrize(("cls", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_online_completions_end_at_the_turn_of_the_template(tmp_path, monkeypatch, model, cls, config):
    monkeypatch.setattr("groups.tiny_model", lambda tokenizer: model)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|user|>")
    monkeypatch.setattr("groups.tiny_tokenizer", lambda: tokenizer)
    trainer = group_trainer(
        cls, config, tmp_path, max_steps=1, top_k=1, generation_kwargs={"eos_token_id": SYSTEM}, shared_prefix="off"
    )
    assert set(trainer.eos_token_ids) == {END, USER, SYSTEM}
    trainer.train()
    record = trainer.state.log_history[0]
    assert record["completions/mean_length"] == 1  # and not 8, all of them cut
    assert record["completions/clipped_ratio"] == 0
