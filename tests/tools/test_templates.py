"""Chat templates that know no tools, made to hold them."""

import pytest
import smollm2
import tiny
from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response, supports_tool_calling

from align.errors import RunError
from align.models.loading import load_tokenizer
from align.models.tiny import tiny_tokenizer
from align.tools import hold_tools

QUESTION = [{"role": "user", "content": "hello"}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "x"}}}
ROLLOUT = [
    *QUESTION,
    {"role": "assistant", "content": "hm ", "tool_calls": [CALL, CALL]},
    {"role": "tool", "name": "add", "content": "1x"},
    {"role": "assistant", "content": "1x it is"},
]


def add(a: int, b: str) -> str:
    """Add two things.

    Args:
        a: The first.
        b: The second.
    """
    return f"{a}{b}"


def rendered(tokenizer, chat, **kw):
    return tokenizer.apply_chat_template(chat, tokenize=False, **kw)


def test_tools_stand_in_the_system_message_and_the_rest_is_as_before():
    tokenizer = tiny_tokenizer()
    plain = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "hi"}]
    before = [
        rendered(tokenizer, chat, add_generation_prompt=asks) for chat in (plain, QUESTION) for asks in (True, False)
    ]
    assert hold_tools(tokenizer)
    after = [
        rendered(tokenizer, chat, add_generation_prompt=asks) for chat in (plain, QUESTION) for asks in (True, False)
    ]
    assert after == before
    told = (
        "You may call tools:\nadd(a, b): Add two things.\n- a: The first.\n- b: The second.\n"
        'To call one, write only <tool_call>{"name": NAME, "arguments": {"KEY": VALUE}}</tool_call>'
    )
    assert rendered(tokenizer, QUESTION, tools=[add]) == f"<|system|>{told}<|end|><|user|>hello<|end|>"
    assert rendered(tokenizer, plain[:2], tools=[add]) == f"<|system|>Be brief.\n\n{told}<|end|><|user|>hello<|end|>"


def test_calls_and_results_are_written_into_messages():
    tokenizer = tiny_tokenizer()
    hold_tools(tokenizer)
    call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": "x"}}</tool_call>'
    assert rendered(tokenizer, ROLLOUT) == (
        f"<|user|>hello<|end|><|assistant|>hm {call}{call}<|end|><|user|><tool_response>1x</tool_response><|end|>"
        "<|assistant|>1x it is<|end|>"
    )


@pytest.mark.parametrize(
    "make", [tiny_tokenizer, pytest.param(lambda: load_tokenizer(smollm2.CONFIG), marks=smollm2.needed)],
    ids=["tiny", "smollm2"],
)  # fmt: skip
def test_trl_takes_the_template_and_reads_what_it_writes(make):
    tokenizer = make()
    assert not supports_tool_calling(tokenizer)
    assert hold_tools(tokenizer)
    assert not hold_tools(tokenizer)
    assert supports_tool_calling(tokenizer)
    assert is_chat_template_prefix_preserving(tokenizer)
    before = tokenizer.apply_chat_template(QUESTION, tools=[add], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(ROLLOUT[:2], tools=[add], return_dict=False)
    assert whole[: len(before)] == before
    read = parse_response(tokenizer, whole[len(before) :], prefix=before, tools=[add])
    assert read == {"role": "assistant", "content": "hm", "tool_calls": [CALL, CALL]}
    said = tokenizer(f"no call{tokenizer.eos_token}", add_special_tokens=False)["input_ids"]
    assert parse_response(tokenizer, said, prefix=before) == {"role": "assistant", "content": "no call"}


def test_the_template_and_how_it_is_read_are_saved_with_the_tokenizer(tmp_path):
    tokenizer = tiny_tokenizer()
    hold_tools(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.chat_template == tokenizer.chat_template
    assert again.response_template == tokenizer.response_template
    assert not hold_tools(again)


def test_a_template_that_renders_tools_is_left_alone():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tiny.QWEN
    assert not hold_tools(tokenizer)
    assert tokenizer.chat_template == tiny.QWEN


@pytest.mark.parametrize(
    "template",
    [None, "{{ raise_exception('no system') if messages[0].role == 'system' }}{{ messages[-1].content }}",
     "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}"],
    ids=["none", "system refused", "turns left out"],
)  # fmt: skip
def test_a_template_that_cannot_hold_tools_is_refused_and_kept(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(RunError, match="tools: the (tokenizer has no|model's) chat template"):
        hold_tools(tokenizer)
    assert tokenizer.chat_template == template
