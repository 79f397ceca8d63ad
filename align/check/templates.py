"""Renders one conversation of each shape that the data have, so that a chat template that refuses, or leaves out, says so.

A template is a program of a stranger's: it runs in a process of its own, with a bound on time and memory.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from align.data.audit.templates import inspect_template
from align.data.prompts import Chat, prompt_of, template_of
from align.data.rows.columns import TEMPLATE
from align.data.rows.messages import SIDES
from align.findings import Finding, printable
from align.models.templates import render

SLICE = 1000
SHAPES = 64  # of conversations that are rendered; data with more are unlike any that people train on


def inspect_templates(sets: Mapping[str, Dataset], tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """Shapes of conversations that the tokenizer's chat template does not render, and what it passes over in the others.

    Args:
        sets: Normalised rows, by the name of their set.
        tokenizer: The model's.
    """
    found = []
    for name, dataset in sets.items():
        if not is_chat(dataset):
            found += inspect_template(dataset, tokenizer, where=name)
            continue
        if tokenizer.chat_template is None:
            message = "the rows are chat messages, and the tokenizer has no chat template"
            remedy = (
                "use an instruction-tuned model, save a template with the tokenizer, or write the rows as plain text"
            )
            found.append(Finding("error", "no-chat-template", name, message, remedy))
            continue
        shapes = dict(_shapes(dataset))
        said = render(tokenizer, [(chat, asks) for _, chat, asks in shapes.values()])
        refused: dict[str, Any] = {}
        for shape, text in zip(shapes, said, strict=True):
            if text is not None:
                refused.setdefault(text, shape)
        for text, shape in refused.items():
            message = f"the chat template refuses {' '.join(shape[0])}: {printable(text, 200)!r}"
            remedy = "mend the rows (a system message may go into the first user message), or the template"
            found.append(Finding("error", "template-refuses", name, message, remedy, (shapes[shape][0],)))
        if not refused:
            found += inspect_template(dataset, tokenizer, where=name)
    return found


def is_chat(dataset: Dataset) -> bool:
    """Whether rows are lists of messages."""
    return len(dataset) > 0 and not isinstance(dataset[0]["prompt"], str)


def _shapes(dataset: Dataset) -> Iterator[tuple[Any, tuple[int, Chat, bool]]]:
    """For each sequence of roles, with what the template is given besides, a row's number, its messages, and whether it asks."""
    seen: set[Any] = set()
    answers = [name for name in SIDES if name in dataset.column_names]
    further = [name for name in TEMPLATE if name in dataset.column_names]
    for start in range(0, len(dataset), SLICE):
        rows = dataset.select_columns(["prompt", *answers, *further])[start : start + SLICE]
        for index, prompt in enumerate(rows["prompt"]):
            given = template_of(prompt_of({"prompt": prompt, **{name: rows[name][index] for name in further}}))
            for chat, asks in ((prompt, True), *((prompt + rows[name][index], False) for name in answers)):
                shape = (tuple(str(message.get("role")) for message in chat), asks, tuple(sorted(given)))
                if shape not in seen and len(seen) < SHAPES:
                    seen.add(shape)
                    yield shape, (start + index + 1, Chat(chat, given), asks)
