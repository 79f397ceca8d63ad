"""Writes conditions, revisions and references into prompts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Prompt = str | Sequence[Mapping[str, Any]]
"""Text, or messages with `role` and `content`; a `Chat`, where the chat template is given more than messages."""


class Chat(list[Mapping[str, Any]]):
    """Messages, with what their chat template is given besides.

    Args:
        messages: With `role` and `content`.
        template: Arguments of `apply_chat_template`, such as `tools`.
    """

    def __init__(self, messages: Iterable[Mapping[str, Any]], template: Mapping[str, Any]) -> None:
        super().__init__(messages)
        self.template = dict(template)


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """The prompt of a normalised row; with the row's `tools` and `chat_template_kwargs`, if it has some."""
    template = dict(row.get("chat_template_kwargs") or {})
    if row.get("tools"):
        template = {"tools": row["tools"], **template}
    return Chat(row["prompt"], template) if template else row["prompt"]


def template_of(prompt: Prompt) -> dict[str, Any]:
    """What `apply_chat_template` is given besides the messages of a prompt."""
    return prompt.template if isinstance(prompt, Chat) else {}
