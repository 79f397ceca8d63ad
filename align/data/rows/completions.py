"""Reads one row for supervised or online training, or says why it cannot be used.

| kind | layout | read as |
|---|---|---|
| completions | prompt, completion: strings | as it is |
| completions | prompt, completion: messages, or a prompt string and messages | the prompt becomes messages |
| completions | prompt: messages; completion: a string | the completion becomes an assistant message |
| completions | messages | the last answer is the completion, what comes before it the prompt |
| labels | as completions, with `label`, or `kto_tag` beside a conversation | `label` is true or false |
| prompts | prompt: string or messages | as it is; every other column goes to the reward functions |
"""

from collections.abc import Mapping
from typing import Any

from .messages import MESSAGES_AS_TEXT, RowError, answer_to, messages_of, says_something
from .normal_form import is_blank
from .pairs import side_of

DESIRABLE, UNDESIRABLE = ("true", "1", "1.0", "desirable"), ("false", "0", "0.0", "undesirable")


def read_completion(row: Mapping[str, Any] | None, mapping: Mapping[str, str]) -> dict[str, Any]:
    """A prompt and its completion, both strings or both lists of messages.

    Raises:
        RowError: If the row cannot be used.
    """
    row = _readable(row)
    completion: Any = side_of(row[mapping["completion"]], "the completion")
    if "prompt" not in mapping:
        if isinstance(completion, str):
            if MESSAGES_AS_TEXT.match(completion):
                raise RowError(
                    "messages-as-text", "the conversation is a list of messages written as text; parse it into a list"
                )
            raise RowError("no-prompt", "a text without a prompt column; name the prompt with columns.prompt")
        if len(completion) < 2:
            raise RowError("no-prompt", "the conversation holds only one message")
        prompt: Any = completion[:-1]
        completion = completion[-1:]
    else:
        prompt = _prompt(row[mapping["prompt"]])
        completion = answer_to(prompt, completion, "the completion")
    if isinstance(completion, str):
        return {"prompt": prompt, "completion": completion}
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if len(completion) > 1:
        prompt, completion = _parted(prompt, completion)
    if completion[-1]["role"] != "assistant":
        raise RowError(
            "wrong-roles", f"the completion ends with a {completion[-1]['role']} message, not the assistant's"
        )
    if prompt[-1]["role"] == "assistant":
        raise RowError("wrong-roles", "the prompt ends with an assistant message")
    if not says_something(completion[-1]):
        raise RowError("empty-answer", "the completion is empty")
    return {"prompt": prompt, "completion": completion}


def read_labelled(row: Mapping[str, Any] | None, mapping: Mapping[str, str]) -> dict[str, Any]:
    """A prompt, its completion, and whether that is desirable.

    Raises:
        RowError: If the row cannot be used.
    """
    row = _readable(row)
    return read_completion(row, mapping) | {"label": label_of(row[mapping["label"]])}


def label_of(value: Any) -> bool:
    """A label of one completion as true or false.

    Raises:
        RowError: If it is neither.
    """
    said = str(value).strip().lower()
    if said not in DESIRABLE + UNDESIRABLE:
        raise RowError("label", f"label is {value!r}, neither true nor false")
    return said in DESIRABLE


def read_prompt(row: Mapping[str, Any] | None, mapping: Mapping[str, str]) -> dict[str, Any]:
    """A prompt: a string, or a list of messages that does not end with an answer.

    Raises:
        RowError: If the row cannot be used.
    """
    prompt = _prompt(_readable(row)[mapping["prompt"]])
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        raise RowError("wrong-roles", "the prompt ends with an assistant message")
    return {"prompt": prompt}


def _parted(prompt: Any, completion: Any) -> tuple[Any, Any]:
    """A completion that repeats its prompt without it; one that goes on from it (calls of tools, and answers) as it is."""
    if completion[0]["role"] == "assistant":
        return prompt, completion
    context = completion[:-1]
    if prompt not in (context[-len(prompt) :], context[: len(prompt)]):
        raise RowError("different-prompts", "the prompt is not what the completion starts with")
    return context, completion[-1:]


def _readable(row: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if row is None:
        raise RowError("not-utf8", "its text is not UTF-8; write the file again as UTF-8")
    return row


def _prompt(value: Any) -> Any:
    if value is None:
        raise RowError("missing-value", "the prompt is missing")
    if value == [] or (isinstance(value, str) and is_blank(value)):
        raise RowError("empty-prompt", "the prompt is empty")
    if isinstance(value, str):
        return value
    messages = messages_of(value, "the prompt")
    if not says_something(messages[-1]):
        raise RowError("empty-prompt", "the prompt is empty: so is its last message")
    return messages
