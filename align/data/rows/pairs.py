"""Reads one preference row, in the layouts people have, or says why it cannot be used.

| layout | read as |
|---|---|
| prompt, chosen, rejected: strings | as it is |
| prompt, chosen, rejected: messages | as it is |
| chosen, rejected: messages | the common beginning is the prompt |
| chosen, rejected: strings | the common beginning is the prompt: up to the last "Assistant:" in it, else whole words |
| prompt: string; chosen, rejected: full conversations | the prompt is the conversation without its last answer |
| prompt: string; chosen, rejected: assistant messages | the prompt becomes one user message |
| question, response_j, response_k | response_j is preferred |

Messages have a `role` and a `content` that is text, and nothing else: whatever else they hold would be lost without a word.
"""

import re
from collections.abc import Mapping
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
LAST_TURN = "\n\nAssistant:"
LONG_PROMPT = 20  # characters beyond which an answer does not begin with the whole prompt by chance
MESSAGES_AS_TEXT = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|content|from|value)[\"']\s*:")


class RowError(ValueError):
    """Why one row cannot be used, and the rule in one word."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def read_row(row: Mapping[str, Any] | None, mapping: Mapping[str, str]) -> dict[str, Any]:
    """One row in our format.

    Args:
        row: A row of the source.
        mapping: What `layout` says.

    Raises:
        RowError: If the row cannot be used.
    """
    if row is None:
        raise RowError("not-utf8", "its text is not UTF-8; write the file again as UTF-8")
    chosen: Any = side_of(row[mapping["chosen"]], "chosen")
    rejected: Any = side_of(row[mapping["rejected"]], "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowError("mixed-formats", "chosen and rejected are of different kinds (text and messages)")
    prompt = row[mapping["prompt"]] if "prompt" in mapping else None
    if "prompt" in mapping:
        if prompt is None:
            raise RowError("missing-value", "the prompt is missing")
        if prompt == [] or (isinstance(prompt, str) and not prompt.strip()):
            raise RowError("empty-prompt", "the prompt is empty")
    read: Any = _plain if isinstance(chosen, str) else _conversation
    result = read(prompt, chosen, rejected)
    if result["chosen"] == result["rejected"]:
        raise RowError("identical-answers", "chosen and rejected are identical")
    return result


def side_of(value: Any, side: str) -> Any:
    """An answer: text, or a list of messages.

    Raises:
        RowError: If it is neither, or empty.
    """
    if value is None:
        raise RowError("missing-value", f"{side} is missing")
    if isinstance(value, str):
        if not value.strip():
            raise RowError("empty-answer", f"{side} is empty")
        return value
    return messages_of(value, side)


def messages_of(value: Any, side: str) -> list[dict[str, str]]:
    """A list of messages with role and content and nothing else.

    Raises:
        RowError: If it is something else.
    """
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else _kind(value)
        remedy = "; put it into a list" if isinstance(value, Mapping) and "content" in value else ""
        raise RowError("wrong-type", f"{side} is neither text nor a list of messages but {kind}{remedy}")
    return [_message(message, side) for message in value]


def _message(message: Any, side: str) -> dict[str, str]:
    if isinstance(message, Mapping) and message.get("role") is None and message.get("from") is not None:
        raise RowError(
            "sharegpt",
            f"{side} has messages with from and value (ShareGPT), not role and content; `alignkit data fix` converts them",
        )
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        lacks = "an object without a role" if isinstance(message, Mapping) else _kind(message)
        raise RowError("wrong-type", f"{side} holds something that is not a message with role and content but {lacks}")
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise RowError("wrong-roles", f"{side} has a message of the role {role!r}; expected one of {', '.join(ROLES)}")
    surplus = [
        key for key, value in message.items() if key not in ("role", "content") and value not in (None, "", [], {})
    ]
    if surplus:
        raise RowError(
            "surplus-keys",
            f"{side} has a message of the {role} with {', '.join(map(repr, surplus))}, which would be lost; write it into "
            "content, or take it out",
        )
    if isinstance(content, list):
        raise RowError(
            "content-parts",
            f"{side} has a message of the {role} whose content is a list of parts; only text is trained on: join the texts into one",
        )
    if not isinstance(content, str):
        raise RowError("wrong-type", f"{side}: a message of the {role} has no text content but {_kind(content)}")
    return {"role": role, "content": content}


def _kind(value: Any) -> str:
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


def _plain(prompt: Any, chosen: str, rejected: str) -> dict[str, Any]:
    if MESSAGES_AS_TEXT.match(chosen) and MESSAGES_AS_TEXT.match(rejected):
        raise RowError(
            "messages-as-text", "chosen and rejected are lists of messages written as text; parse them into lists"
        )
    if prompt is None:
        if chosen == rejected:
            raise RowError("identical-answers", "chosen and rejected are identical")
        common = _common_beginning(chosen, rejected)
        if not common.strip():
            raise RowError(
                "no-prompt",
                "no prompt column, and chosen and rejected have no common beginning; name the column with columns.prompt",
            )
        prompt, chosen, rejected = common, chosen[len(common) :], rejected[len(common) :]
        if not chosen.strip() or not rejected.strip():
            raise RowError("empty-answer", "an answer is empty once the common beginning is taken as the prompt")
    elif not isinstance(prompt, str):
        raise RowError("mixed-formats", f"the answers are text but the prompt is not: it is {_kind(prompt)}")
    elif len(prompt.strip()) >= LONG_PROMPT and repeats(prompt, chosen) and repeats(prompt, rejected):
        raise RowError(
            "prompt-in-answer",
            "both answers begin with the whole prompt, which would be read twice; take it out of them",
        )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def repeats(prompt: str, answer: str) -> bool:
    """Whether an answer begins with the whole prompt, space around it aside."""
    return answer.lstrip().startswith(prompt.strip())


def _common_beginning(chosen: str, rejected: str) -> str:
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    common = chosen[: min(len(chosen), len(rejected)) if same is None else same]
    turn = common.rfind(LAST_TURN)
    if turn >= 0:  # the layout of Anthropic's HH: answers may well begin with the same words
        return common[: turn + len(LAST_TURN)]
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


def _conversation(prompt: Any, chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> dict[str, Any]:
    for side, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1]["role"] != "assistant":
            raise RowError("wrong-roles", f"{side} ends with a {messages[-1]['role']} message, not the assistant's")
        if not messages[-1]["content"].strip():
            raise RowError("empty-answer", f"{side} is empty")
    if prompt is not None and not isinstance(prompt, str):
        prompt = messages_of(prompt, "prompt")
    if len(chosen) > 1 or len(rejected) > 1:
        context = chosen[:-1]
        if context != rejected[:-1]:
            raise RowError("different-prompts", "chosen and rejected differ before the last answer")
        stated = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if stated is not None and context[-len(stated) :] != stated:
            raise RowError("different-prompts", "the prompt is not what chosen and rejected start with")
        prompt, chosen, rejected = context, chosen[-1:], rejected[-1:]
    elif isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if prompt is None:
        raise RowError("no-prompt", "no prompt column, and the conversations hold only an answer")
    if prompt[-1]["role"] == "assistant":
        raise RowError("wrong-roles", "the prompt ends with an assistant message")
    if not prompt[-1]["content"].strip():
        raise RowError("empty-prompt", "the prompt is empty: so is its last message")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
