"""Runs a chat template, a stranger's program, within bounds of time and memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from align.data.prompts import template_of
from align.errors import RunError
from align.findings import printable
from align.strict.bounded import OutOfBounds, bounded

SECONDS = 4.0
LONGEST = 1 << 20  # characters that a template may add to a conversation
NO_TEMPLATE, TOO_LONG = "TemplateSyntaxError", "it makes"
PROBES: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "Hello"}],
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}],
    [{"role": "system", "content": "Hello"}, {"role": "user", "content": "Hello"}],
)


def render(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[tuple[Sequence[Mapping[str, Any]], bool]]
) -> list[str | None]:
    """Why the tokenizer's template refuses each conversation; None where it renders it.

    Args:
        tokenizer: With a chat template.
        chats: Messages, with what the template is given besides if they are a `Chat`, and whether it is to ask for an answer.

    Raises:
        RunError: If rendering takes more time or memory than it may, which ends all of it.
    """

    def work() -> list[str | None]:
        return [_refusal(tokenizer, chat, asks) for chat, asks in chats]

    try:
        return bounded(work, seconds=SECONDS)
    except OutOfBounds as error:
        raise RunError(
            f"{_name(tokenizer)}: the chat template cannot be used: {error}; use another template or model"
        ) from None


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a chat template that is no template, or that never ends.

    Raises:
        RunError: Saying which.
    """
    if tokenizer.chat_template is None:
        return
    said = render(tokenizer, [(chat, True) for chat in PROBES])
    broken = next((text for text in said if text is not None and text.startswith((NO_TEMPLATE, TOO_LONG))), None)
    if broken is not None:
        raise RunError(f"{_name(tokenizer)}: the chat template cannot be used: {printable(broken, 200)}; mend it")


def _refusal(tokenizer: PreTrainedTokenizerBase, chat: Any, asks: bool) -> str | None:
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=asks, **template_of(chat))
    except MemoryError:
        raise
    except Exception as error:  # a template may raise anything
        return f"{type(error).__name__}: {error}"[:1000]
    given = sum(len(str(message)) for message in chat)
    if len(text) > 10 * given + LONGEST:
        return f"{TOO_LONG} {len(text)} characters for a conversation of {given}"
    return None


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return printable(str(tokenizer.name_or_path), 200) or "tokenizer"
