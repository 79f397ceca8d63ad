"""Renders one conversation of each shape that the data have, so that a chat template that refuses, or leaves out, says so.

A template is a program of a stranger's: it runs in a process of its own, with a bound on time and memory.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, List
from transformers import PreTrainedTokenizerBase

from align.data.audit.templates import inspect_template
from align.data.prompts import Chat, prompt_of, template_of
from align.data.rows.columns import TEMPLATE
from align.data.rows.messages import SIDES
from align.data.rows.tables import joined, messages, only_texts, slices
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


def _first_of_roles(dataset: Dataset) -> list[int]:
    """The first row of each sequence of roles."""
    seen: dict[Any, int] = {}
    start = 0
    for part in slices(dataset, dataset.column_names):
        roles = []
        for name in dataset.column_names:
            bounds, each, _ = messages(part[name])
            roles.append(joined(each, bounds, "\0"))
        whole = pc.call_function("binary_join_element_wise", [*roles, pa.scalar("\1", roles[0].type)])
        coded = whole.dictionary_encode()
        for code, row in zip(*np.unique(coded.indices.to_numpy(zero_copy_only=False), return_index=True), strict=True):
            seen.setdefault(coded.dictionary[int(code)].as_py(), start + int(row))
        start += len(whole)
    return sorted(seen.values())


def is_chat(dataset: Dataset) -> bool:
    """Whether rows are lists of messages."""
    return len(dataset) > 0 and not isinstance(dataset[0]["prompt"], str)


def _shapes(dataset: Dataset) -> Iterator[tuple[Any, tuple[int, Chat, bool]]]:
    """For each sequence of roles, with what the template is given besides, a row's number, its messages, and whether it asks."""
    seen: set[Any] = set()
    answers = [name for name in SIDES if name in dataset.column_names]
    further = [name for name in TEMPLATE if name in dataset.column_names]
    columns = dataset.select_columns(["prompt", *answers, *further])
    parts = [columns.features[name] for name in ("prompt", *answers)]
    if not further and all(isinstance(part, List) and only_texts(part) for part in parts):  # roles are all of a shape
        first = _first_of_roles(columns)
        columns = columns.select(first)
    else:
        first = range(len(columns))
    for start in range(0, len(columns), SLICE):
        rows = columns[start : start + SLICE]
        for index, prompt in enumerate(rows["prompt"]):
            given = template_of(prompt_of({"prompt": prompt, **{name: rows[name][index] for name in further}}))
            for chat, asks in ((prompt, True), *((prompt + rows[name][index], False) for name in answers)):
                shape = (tuple(str(message.get("role")) for message in chat), asks, tuple(sorted(given)))
                if shape not in seen and len(seen) < SHAPES:
                    seen.add(shape)
                    yield shape, (int(first[start + index]) + 1, Chat(chat, given), asks)
