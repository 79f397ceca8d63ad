"""Reads one preference row, in the layouts people have, or says why it cannot be used.

| layout | read as |
|---|---|
| prompt, chosen, rejected: strings | as it is |
| prompt, chosen, rejected: messages | as it is |
| chosen, rejected: messages | the common beginning is the prompt |
| chosen, rejected: strings | the common beginning is the prompt: up to the last "Assistant:" in it, else whole words |
| prompt: string; chosen, rejected: full conversations | the prompt is the conversation without its last answer |
| prompt: string; chosen, rejected: assistant messages | the prompt becomes one user message |
| prompt: messages; chosen, rejected: strings | the answers become assistant messages |
| conversations or messages: the prompt; chosen, rejected | as if the column were called prompt |
| question, response_j, response_k | response_j is preferred |

Messages are those of `align.data.rows.messages`; layouts with labels, ranks or scores those of `align.data.rows.layouts`.
"""

from collections.abc import Mapping
from typing import Any

from .messages import MESSAGES_AS_TEXT, SYSTEM_ROLES, RowError, answer_to, kind_of, messages_of, says_something
from .normal_form import is_blank, visible

LAST_TURN = "\n\nAssistant:"
LONG_PROMPT = 20  # characters beyond which an answer does not begin with the whole prompt by chance


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
        if prompt == [] or (isinstance(prompt, str) and is_blank(prompt)):
            raise RowError("empty-prompt", "the prompt is empty")
    chosen, rejected = answer_to(prompt, chosen, "chosen"), answer_to(prompt, rejected, "rejected")
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
        if is_blank(value):
            raise RowError("empty-answer", f"{side} is empty")
        return value
    return messages_of(value, side)


def _plain(prompt: Any, chosen: str, rejected: str) -> dict[str, Any]:
    if MESSAGES_AS_TEXT.match(chosen) and MESSAGES_AS_TEXT.match(rejected):
        raise RowError(
            "messages-as-text", "chosen and rejected are lists of messages written as text; parse them into lists"
        )
    if prompt is None:
        if chosen == rejected:
            raise RowError("identical-answers", "chosen and rejected are identical")
        common = _common_beginning(chosen, rejected)
        if is_blank(common):
            raise RowError(
                "no-prompt",
                "no prompt column, and chosen and rejected have no common beginning; name the column with columns.prompt",
            )
        prompt, chosen, rejected = common, chosen[len(common) :], rejected[len(common) :]
        if is_blank(chosen) or is_blank(rejected):
            raise RowError("empty-answer", "an answer is empty once the common beginning is taken as the prompt")
    elif not isinstance(prompt, str):
        raise RowError("mixed-formats", f"the answers are text but the prompt is not: it is {kind_of(prompt)}")
    elif len(prompt.strip()) >= LONG_PROMPT and repeats(prompt, chosen) and repeats(prompt, rejected):
        raise RowError(
            "prompt-in-answer",
            "both answers begin with the whole prompt, which would be read twice; take it out of them",
        )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def repeats(prompt: str, answer: str) -> bool:
    """Whether an answer begins with the whole prompt, space around it aside."""
    return visible(answer).lstrip().startswith(visible(prompt).strip())


def _common_beginning(chosen: str, rejected: str) -> str:
    same = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    common = chosen[: min(len(chosen), len(rejected)) if same is None else same]
    turn = common.rfind(LAST_TURN)
    if turn >= 0:  # the layout of Anthropic's HH: answers may well begin with the same words
        return common[: turn + len(LAST_TURN)]
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


def _conversation(prompt: Any, chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> dict[str, Any]:
    for side, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1]["role"] != "assistant":
            raise RowError("wrong-roles", f"{side} ends with a {messages[-1]['role']} message, not the assistant's")
        if not says_something(messages[-1]):
            raise RowError("empty-answer", f"{side} is empty")
    if prompt is not None and not isinstance(prompt, str):
        prompt = messages_of(prompt, "prompt")
    if len(chosen) > 1 or len(rejected) > 1:
        context = chosen[:-1]
        if context != rejected[:-1]:
            raise RowError("different-prompts", "chosen and rejected differ before the last answer")
        stated = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        told = (context[-len(stated) :], _after_system(context)[: len(stated)], chosen) if stated is not None else ()
        if stated is not None and stated not in told:
            raise RowError("different-prompts", "the prompt is not what chosen and rejected start with")
        prompt, chosen, rejected = context, chosen[-1:], rejected[-1:]
    elif isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if prompt is None:
        raise RowError("no-prompt", "no prompt column, and the conversations hold only an answer")
    if prompt[-1]["role"] == "assistant":
        raise RowError("wrong-roles", "the prompt ends with an assistant message")
    if not says_something(prompt[-1]):
        raise RowError("empty-prompt", "the prompt is empty: so is its last message")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _after_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return messages[1:] if messages[0]["role"] in SYSTEM_ROLES else messages
