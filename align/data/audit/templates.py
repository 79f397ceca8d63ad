"""Says what a model's chat template does not render, and where it is not applied."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

from datasets import Dataset, Json
from transformers import PreTrainedTokenizerBase

from align.data.prompts import prompt_of, template_of
from align.data.rows.messages import RENDERED, SIDES, SPECIAL
from align.findings import Finding, printable

TRIED = 20  # rows that hold a thing, rendered with and without it
PLAIN = "plain-text-on-chat-model"
LOOKED_AT = 50  # texts in which tokens of a template are looked for


def inspect_template(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, where: str) -> list[Finding]:
    """What of a set the chat template would pass over: an error for each thing, a warning for plain text.

    Args:
        dataset: Normalised rows of any kind.
        tokenizer: The model's.
        where: What to call the set.
    """
    if tokenizer.chat_template is None or not len(dataset):
        return []  # chat messages without a template are refused by whoever tokenizes them
    if isinstance(dataset[0]["prompt"], str):
        return _plain(dataset, where)
    return [
        Finding("error", "not-rendered", where, message, remedy)
        for message, remedy in (*_arguments(dataset, tokenizer), *_keys(dataset, tokenizer))
    ]


def _plain(dataset: Dataset, where: str) -> list[Finding]:
    texts = dataset[:LOOKED_AT]["prompt"]
    if any(SPECIAL.search(text) for text in texts):
        return []  # written in a template already
    message = "the rows are plain text: the model's chat template is not applied to them"
    remedy = "`data.as_messages=true` reads them as messages; leave it if the model should go on with plain text"
    return [Finding("warning", PLAIN, where, message, remedy)]


def _arguments(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, str]]:
    """Tools and arguments of rows of which the template takes no notice."""
    present = [name for name in ("tools", "chat_template_kwargs") if name in dataset.column_names]
    held: dict[str, list[dict[str, Any]]] = {}
    rows = dataset.select_columns([*_messages(dataset), *present]) if present else ()
    for row in cast("Iterable[Any]", rows):
        for name in template_of(prompt_of(row)):
            kept = held.setdefault(name, [])
            kept += [row] * (len(kept) < TRIED)
    for name, kept in held.items():
        column = "tools" if name == "tools" else "chat_template_kwargs"
        named = name != "tools" and re.search(rf"\b{re.escape(name)}\b", str(tokenizer.chat_template))
        if not named and not any(_differ(row, tokenizer, without=name) for row in kept):
            what = "tools" if name == "tools" else f"chat_template_kwargs: {printable(name)!r}"
            remedy = f"use a model whose template renders them, or do without them by `ignore: [{column}]`"
            yield f"{what}: the model's chat template takes no notice", remedy


def _keys(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, str]]:
    """Keys of messages that the template renders in no row."""
    names = _messages(dataset)
    if not any(isinstance(dataset.features[name], Json) for name in names):
        return
    for key in RENDERED:
        rows = (
            row
            for row in cast("Iterable[Any]", dataset)
            if any(key in message for name in names for message in row[name])
        )
        tried = list(islice(rows, TRIED))
        if tried and not any(_differ(row, tokenizer, key=key) for row in tried):
            remedy = f"use a model whose template renders it, or do without it by `ignore: [{key}]`"
            yield f"messages with {key!r}: the model's chat template takes no notice", remedy


def _messages(dataset: Dataset) -> list[str]:
    return [name for name in ("prompt", *SIDES) if name in dataset.column_names]


def _differ(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, without: str = "", key: str = "") -> bool:
    """Whether a conversation of a row is rendered otherwise without an argument, or without a key of its messages."""
    prompt = prompt_of(row)
    given = template_of(prompt)
    answers: Sequence[Any] = [row[side] for side in SIDES if side in row] or [[]]
    template: Any = tokenizer.apply_chat_template
    for answer in answers:
        whole = [*prompt, *answer]
        bare = [{name: value for name, value in message.items() if name != key} for message in whole]
        less = {name: value for name, value in given.items() if name != without}
        try:
            if template(whole, tokenize=False, **given) != template(bare, tokenize=False, **less):
                return True
        except Exception:  # a template may raise anything; that is told where rows are tokenized
            return True
    return False
