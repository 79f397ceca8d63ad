"""Lets a chat template that knows no tools hold them: calls and results are written into ordinary messages."""

import logging
import re
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import add_response_schema

from align.errors import RunError
from align.findings import printable

logger = logging.getLogger(__name__)

MARK = "{#- alignkit: tools as text -#}"
"""What a template that `hold_tools` made begins with."""
_BEFORE = (
    MARK
    + r"""
{%- set said = namespace(messages=[], told=false) %}
{%- if tools %}
{%- set said.head = 'You may call tools:\n' %}
{%- for tool in tools %}
{%- set f = tool.function or tool %}
{%- set said.names = [] %}
{%- set said.more = '' %}
{%- for key, value in (f.parameters.properties or {}).items() %}
{%- set said.names = said.names + [key] %}
{%- set said.more = said.more + '\n- ' + key + ': ' + (value.description or value.type or '') %}
{%- endfor %}
{%- set said.head = said.head + f.name + '(' + (said.names | join(', ')) + '): ' + f.description + said.more + '\n' %}
{%- endfor %}
{%- set said.head = said.head + 'To call one, write only <tool_call>{"name": NAME, "arguments": {"KEY": VALUE}}</tool_call>' %}
{%- if messages and messages[0].role == 'system' %}
{%- set said.head = messages[0].content + '\n\n' + said.head %}
{%- endif %}
{%- set said.messages = [{'role': 'system', 'content': said.head}] %}
{%- endif %}
{%- for m in messages %}
{%- if tools and loop.first and m.role == 'system' %}
{%- elif m.role == 'tool' %}
{%- set said.messages = said.messages + [{'role': 'user', 'content': '<tool_response>' + m.content + '</tool_response>'}] %}
{%- elif m.tool_calls %}
{%- set said.text = m.content or '' %}
{%- for call in m.tool_calls %}
{%- set f = call.function or call %}
{%- set said.text = said.text + '<tool_call>{"name": "' + f.name + '", "arguments": ' + (f.arguments | tojson) + '}</tool_call>' %}
{%- endfor %}
{%- set said.messages = said.messages + [{'role': m.role, 'content': said.text}] %}
{%- else %}
{%- set said.messages = said.messages + [m] %}
{%- endif %}
{%- endfor %}
{%- set messages = said.messages %}"""
)
_PROBE = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f_1", "arguments": {"a_1": "v_1"}}}]},
    {"role": "tool", "name": "f_1", "content": "r_1"},
]  # fmt: skip


def hold_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give a tokenizer whose chat template knows no tools one that writes them into ordinary messages, and say so.

    Tools are listed in the system message; a call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` in the text of an
    answer; a result is a message of the user, `<tool_response>...</tool_response>`. The rest is rendered as before. A
    template that renders calls and results is left as it is.

    Returns:
        Whether the template was changed. The tokenizer is saved with the run, and with it the template.

    Raises:
        RunError: If there is no template, or it renders no system message or no second message of the user.
    """
    template: Any = tokenizer.chat_template
    if not isinstance(template, str):
        raise RunError(
            "tools: the tokenizer has no chat template, which calls of tools are written by; use a chat model"
        )
    if template.startswith(MARK) or _renders_calls(tokenizer):
        return False
    try:
        asks, before = (
            str(tokenizer.apply_chat_template(_PROBE[:1], tokenize=False, add_generation_prompt=asked))
            for asked in (True, False)
        )
        tokenizer.chat_template = _BEFORE + template
        holds = _renders_calls(tokenizer)
    except TemplateError:
        asks = before = ""
        holds = False
    if not holds or not asks.startswith(before) or asks == before or tokenizer.eos_token is None:
        tokenizer.chat_template = template
        raise RunError(
            "tools: the model's chat template holds no tools, and cannot be made to (it needs a system message, turns of both "
            "sides, a beginning for the assistant's, and an end-of-sequence token); use a model whose template has tools"
        )
    tokenizer.response_template = _answers(asks.removeprefix(before), str(tokenizer.eos_token))
    logger.warning(
        "the chat template of %s knows no tools: they are listed in the system message, called by <tool_call> in the text, and "
        "answered in a message of the user; the run's tokenizer keeps this template",
        printable(str(tokenizer.name_or_path), 200) or "the model",
    )  # fmt: skip
    return True


def read_calls(tokenizer: PreTrainedTokenizerBase) -> None:
    """`hold_tools`, and where nothing says yet how calls are read out of an answer, TRL's way for the template it knows.

    Raises:
        RunError: As `hold_tools`.
        ValueError: If TRL does not know the template.
    """
    hold_tools(tokenizer)
    if getattr(tokenizer, "response_template", None) is None and getattr(tokenizer, "response_schema", None) is None:
        add_response_schema(tokenizer)


def _renders_calls(tokenizer: PreTrainedTokenizerBase) -> bool:
    try:
        text = str(tokenizer.apply_chat_template(_PROBE, tokenize=False))
    except TemplateError:
        return False
    return all(part in text for part in ("f_1", "a_1", "v_1", "r_1"))


def _answers(beginning: str, end: str) -> dict[str, Any]:
    """How an answer is read: transformers' response template."""
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": beginning,
        "fields": {
            "tool_calls": {
                "open": "<tool_call>", "close_pattern": r"</tool_call>\s*", "repeats": True, "content": "json",
                "transform": {"type": "function", "function": "{content}"},
            },
            "content": {"close_pattern": re.escape(end) + r"\s*", "content": "text"},
        },
    }  # fmt: skip
