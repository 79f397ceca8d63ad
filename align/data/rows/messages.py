"""Reads messages in the forms people have as `role` and `content`, so that nothing a message says is lost.

Content is text; parts that are text are joined. ShareGPT's `from` and `value` become `role` and `content`. What chat templates
render besides (`RENDERED`) is kept; whether a model's template does render it only its tokenizer can say
(`align.data.audit.templates`). Any other key is refused, because it would be lost without a word.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .normal_form import is_blank

MESSAGES_AS_TEXT = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|content|from|value)[\"']\s*:")
SIDES = ("chosen", "rejected", "completion")
"""Columns of a normalised row that answer its prompt."""
SYSTEM_ROLES = ("system", "developer")
ROLES = (*SYSTEM_ROLES, "user", "assistant", "tool")
PLAIN_KEYS = frozenset(("role", "content"))
RENDERED = ("tool_calls", "tool_call_id", "name", "reasoning_content", "reasoning", "thinking")
SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "assistant": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
NOTHING: tuple[Any, ...] = (None, "", [], {})
TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ \t]?")
SPECIAL = re.compile(
    r"<\|[A-Za-z0-9_]{2,40}\|>|<｜[^｜\s]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>"
)
"""What tokenizers read as control tokens."""
FIXED = frozenset({
    "conversation", "messages", "tools", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template",
    "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length", "tokenizer_kwargs",
})  # fmt: skip
"""Arguments of `apply_chat_template` that training sets itself."""


class RowError(ValueError):
    """Why one row cannot be used, and the rule in one word."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def messages_of(value: Any, side: str) -> list[dict[str, Any]]:
    """A list of messages with `role`, `content`, and what templates render besides; one message is a list of one.

    One object of lists, a list for each key, is read as the list of objects that it stands for, as `datasets` writes them.

    Raises:
        RowError: If it is something else.
    """
    if isinstance(value, Mapping) and any(isinstance(value.get(key), list) for key in ("role", "from")):
        value = _parted(value, side)
    elif isinstance(value, Mapping) and ("role" in value or "from" in value):
        value = [value]
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else kind_of(value)
        raise RowError("wrong-type", f"{side} is neither text nor a list of messages but {kind}")
    return [_message(message, side) for message in value]


def _parted(value: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """Messages of an object that has a list for each of their keys."""
    kept = {key: each for key, each in value.items() if each not in NOTHING}
    lengths = {len(each) if isinstance(each, list) else None for each in kept.values()}
    if len(lengths) != 1 or None in lengths:
        raise RowError("wrong-type", f"{side} has {', '.join(kept)} that are not lists of one length")
    return [dict(zip(kept, each, strict=True)) for each in zip(*kept.values(), strict=True)]


def _message(message: Any, side: str) -> dict[str, Any]:
    if type(message) is dict and message.keys() == PLAIN_KEYS:  # nearly all: the rules below change nothing of it
        role, content = message["role"], message["content"]
        if type(role) is str and type(content) is str and role in ROLES:
            return {"role": role, "content": content}
    if isinstance(message, Mapping) and message.get("role") is None and message.get("from") is not None:
        message = _from_sharegpt(message, side)
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        lacks = "an object without a role" if isinstance(message, Mapping) else kind_of(message)
        raise RowError("wrong-type", f"{side} holds something that is not a message with role and content but {lacks}")
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise RowError("wrong-roles", f"{side} has a message of the role {role!r}; expected one of {', '.join(ROLES)}")
    further = {key: value for key, value in message.items() if key not in ("role", "content") and value not in NOTHING}
    surplus = [key for key in further if key not in RENDERED]
    if surplus:
        raise RowError(
            "surplus-keys",
            f"{side} has a message of the {role} with {', '.join(map(repr, surplus))}, which would be lost; write it into "
            "content, or take it out",
        )
    if isinstance(content, list):
        content = "".join(_part(part, role, side) for part in content)
    if content is None and further.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise RowError("wrong-type", f"{side}: a message of the {role} has no text content but {kind_of(content)}")
    return {"role": role, "content": content} | without_nulls(further)


def _from_sharegpt(message: Mapping[str, Any], side: str) -> dict[str, Any]:
    name = str(message["from"])
    if name not in SHAREGPT:
        raise RowError(
            "wrong-roles", f"{side} has a message from {name!r}; of ShareGPT's names {', '.join(SHAREGPT)} are read"
        )
    rest = {key: value for key, value in message.items() if key not in ("from", "value", "role", "content")}
    return {"role": SHAREGPT[name], "content": message.get("value"), **rest}


def _part(part: Any, role: str, side: str) -> str:
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    what = (
        f"of the type {part['type']!r}"
        if isinstance(part, Mapping) and part.get("type")
        else f"that is {kind_of(part)}"
    )
    raise RowError("content-parts", f"{side} has a message of the {role} with a part {what}; only text is trained on")


def says_something(message: Mapping[str, Any]) -> bool:
    """Whether a message has content that is not blank, or calls a tool."""
    return not is_blank(message["content"]) or bool(message.get("tool_calls"))


def without_nulls(value: Any) -> Any:
    """A value without the nulls that Arrow puts where other rows have a key and this one has none."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def kind_of(value: Any) -> str:
    """What a value is, in words for messages."""
    if isinstance(value, bool):
        return "true or false"
    known = (
        (str, "text"),
        (int | float, "a number"),
        (list, "a list"),
        (Mapping, "an object"),
        (type(None), "nothing"),
    )
    return next((name for kind, name in known if isinstance(value, kind)), type(value).__name__)


# --- texts as messages --------------------------------------------------------------------------------


def answer_to(prompt: Any, answer: Any, side: str) -> Any:
    """A text that answers a prompt of messages as a message of the assistant; any other answer as it is.

    Raises:
        RowError: If the text is itself a list of messages.
    """
    if not isinstance(answer, str) or not isinstance(prompt, list | Mapping):
        return answer
    if MESSAGES_AS_TEXT.match(answer):
        raise RowError("messages-as-text", f"{side} is a list of messages written as text; parse it into a list")
    return [{"role": "assistant", "content": answer}]


def conversation(text: str) -> list[dict[str, Any]]:
    """A prompt of plain text as messages: the turns of a transcript ("Human:", "Assistant:"), else one of the user.

    Raises:
        RowError: If the text holds the control tokens of a chat template, which would be rendered twice.
    """
    found = SPECIAL.search(text)
    if found:
        raise RowError(
            "template-tokens-in-text",
            f"the prompt holds {found[0]!r} of a chat template and would go through one again; train on the text as it is "
            "(without data.as_messages), or take the tokens out",
        )
    turns = list(TURN.finditer(text))
    if not turns or text[: turns[0].start()].strip() or turns[0][1] != "Human":
        return [{"role": "user", "content": text.strip()}]
    ends = [turn.start() for turn in turns[1:]] + [len(text)]
    names = {"Human": "user", "Assistant": "assistant"}
    said = [
        {"role": names[turn[1]], "content": text[turn.end() : end].strip()}
        for turn, end in zip(turns, ends, strict=True)
    ]
    return said[:-1] if said[-1]["role"] == "assistant" and not said[-1]["content"] else said


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """A row of texts as one of messages; one of messages as it is."""
    if not isinstance(row["prompt"], str):
        return row
    answers = {side: row[side] for side in SIDES if side in row}
    return row | {
        "prompt": conversation(row["prompt"]),
        **{side: [{"role": "assistant", "content": text.strip()}] for side, text in answers.items()},
    }


def with_system(row: dict[str, Any], system: Any) -> dict[str, Any]:
    """A row as messages, the value of its column `system` first among them.

    Raises:
        RowError: If it is no text, or the prompt has another system message.
    """
    row = as_messages(row)
    if system is None or (isinstance(system, str) and not system.strip()):
        return row
    if not isinstance(system, str):
        raise RowError("wrong-type", f"system is no text but {kind_of(system)}")
    first = row["prompt"][0]
    if first["role"] not in SYSTEM_ROLES:
        return row | {"prompt": [{"role": "system", "content": system}, *row["prompt"]]}
    if first["content"] != system:
        raise RowError("two-systems", "the column system and the prompt's own system message differ; keep one of them")
    return row


def without_keys(row: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A row whose messages are without some keys.

    Raises:
        RowError: If a message then says nothing.
    """
    if not keys or isinstance(row["prompt"], str):
        return row
    result = dict(row)
    for name in ("prompt", *SIDES):
        if name in row:
            result[name] = [{k: v for k, v in message.items() if k not in keys} for message in row[name]]
            if not says_something(result[name][-1]):
                raise RowError("empty-answer", f"{name} is empty without {', '.join(keys)}")
    return result


# --- arguments of the chat template -------------------------------------------------------------------


def template_arguments(row: Mapping[str, Any], *, is_text: bool) -> dict[str, Any]:
    """`tools` and `chat_template_kwargs` of a row, as TRL hands them to the chat template; JSON written as text is parsed.

    Args:
        row: A row of the source, with one of the two columns or both.
        is_text: Whether the row is plain text, which goes through no template.

    Raises:
        RowError: If they are something else, would be set twice, or the row goes through no template.
    """
    found = {"tools": _parsed(row.get("tools"), "tools", list)} if "tools" in row else {}
    if "chat_template_kwargs" in row:
        found["chat_template_kwargs"] = _parsed(row["chat_template_kwargs"], "chat_template_kwargs", dict) or {}
    twice = FIXED & set(found.get("chat_template_kwargs", {}))
    if twice:
        raise RowError(
            "wrong-type", f"chat_template_kwargs sets {', '.join(sorted(twice))}, which training sets itself"
        )
    given = [name for name, value in found.items() if value]
    if is_text and given:
        raise RowError(
            "no-template", f"{' and '.join(given)} need a chat template, and the row is text; set data.as_messages=true"
        )
    return found


def _parsed(value: Any, name: str, kind: type) -> Any:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowError("wrong-type", f"{name} is text that is no JSON") from None
    if value in NOTHING:
        return None
    if not isinstance(value, kind):
        expected = "a list of objects" if kind is list else "an object"
        raise RowError("wrong-type", f"{name} is not {expected} but {kind_of(value)}")
    return without_nulls(value)
