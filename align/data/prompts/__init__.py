"""Writes conditions, revisions and references into prompts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Prompt = str | Sequence[Mapping[str, Any]]
"""Text, or messages with `role` and `content`; a `Chat`, where the chat template is given more than messages."""


class Chat(list[Mapping[str, Any]]):
    """Messages, with what their chat template is given besides.

    Args:
        messages: With `role` and `content`.
        template: Arguments of `apply_chat_template`, such as `tools`.
        row: All that an environment of tools begins with, where there is one.
    """

    def __init__(
        self,
        messages: Iterable[Mapping[str, Any]],
        template: Mapping[str, Any],
        row: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(messages)
        self.template, self.row = dict(template), row


def prompt_of(row: Mapping[str, Any]) -> Prompt:
    """The prompt of a normalised row; with the row's `tools`, which may be JSON, and `chat_template_kwargs`, if it has some."""
    template, tools = dict(row.get("chat_template_kwargs") or {}), row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    if tools is not None:  # no tools and an empty list are two things to some templates
        template = {"tools": tools, **template}
    return Chat(row["prompt"], template) if template else row["prompt"]


def template_of(prompt: Prompt) -> dict[str, Any]:
    """What `apply_chat_template` is given besides the messages of a prompt."""
    return prompt.template if isinstance(prompt, Chat) else {}


def beside(prompt: Prompt) -> list[Any]:
    """All that an answer depends on besides the messages of a prompt, nothing for one that is nothing else."""
    if not isinstance(prompt, Chat) or not (prompt.template or prompt.row):
        return []
    return [prompt.template, *([] if prompt.row is None else [dict(prompt.row)])]
