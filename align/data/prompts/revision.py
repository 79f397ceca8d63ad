"""Writes prompts that show a draft and ask for a better answer."""

from typing import Any

INSTRUCTION = "That was a draft. Write a better answer to my message."


def revision_prompt(prompt: Any, draft: Any, instruction: str = INSTRUCTION) -> Any:
    """The prompt, the draft as the answer to it, and the instruction to improve on it.

    Args:
        prompt: A string, or a list of messages.
        draft: An answer of the same kind.
        instruction: What the user says about the draft.

    Returns:
        A prompt of the same kind. In plain text the parts are paragraphs of their own.
    """
    if isinstance(prompt, str):
        return f"{prompt}{draft}\n\n{instruction}\n\n"
    return [*prompt, *draft, {"role": "user", "content": instruction}]
