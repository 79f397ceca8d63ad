"""Looks through the token ids of a set for what stops training: ids without an embedding, prompts that leave no room.

`align.data.audit.tokens` says all there is to say of pairs; this is as much as every run can afford before it starts.
"""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from align.data.audit.tokens import no_end
from align.data.rows.messages import SIDES
from align.findings import Finding

SLICE = 256


def inspect_ids(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, embedded: int | None, where: str
) -> list[Finding]:
    """A tokenizer without an end of sequence, and rows with token ids that have no embedding. A tokenizer all of whose ids have one needs no look at the rows.

    Args:
        dataset: Normalised rows.
        tokenizer: The model's.
        embedded: Rows of the model's embedding, or None if they are not known.
        where: What to call the set.
    """
    if without_end := no_end(tokenizer, where):
        return without_end
    if embedded is None or max(tokenizer.get_vocab().values(), default=0) < embedded:
        return []
    rows, largest = [], 0
    for number, ids in _ids(dataset, tokenizer):
        if max(ids, default=0) >= embedded:
            rows.append(number)
            largest = max(largest, *ids)
    if not rows:
        return []
    message = f"token id {largest}, and the model's embedding has {embedded} rows"
    remedy = (
        "use the tokenizer that belongs to the model, or give the model the tokens it lacks (resize_token_embeddings)"
    )
    return [Finding("error", "tokens-without-embedding", where, message, remedy, tuple(dict.fromkeys(rows)))]


def inspect_room(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, where: str
) -> list[Finding]:
    """Whether any prompt leaves room for an answer; it is enough to find one that does."""
    if max_length is None or len(dataset) == 0 or not any(name in dataset.column_names for name in SIDES):
        return []
    encoded = 0
    for _, ids in _ids(dataset.select_columns(["prompt"]), tokenizer):
        if len(ids) < max_length:
            return []
        encoded += 1
    if not encoded:
        return []  # a template that refuses all of them is told by itself
    message = (
        f"each of the {len(dataset)} prompts alone has max_length={max_length} tokens or more: nothing is left to train"
    )
    return [
        Finding("error", "prompt-fills-max-length", where, message, "raise train.max_length or shorten the prompts")
    ]


def _ids(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, list[int]]]:
    """Numbers of rows and ids of their prompt, and of their answers after it; what a template refuses is left out."""
    for start in range(0, len(dataset), SLICE):
        rows = dataset[start : start + SLICE]
        answers = [rows[name] for name in SIDES if name in rows]
        for index, prompt in enumerate(rows["prompt"]):
            for answer in (None, *(column[index] for column in answers)):
                try:
                    yield start + index + 1, _encoded(tokenizer, prompt, answer)
                except Exception:
                    continue


def _encoded(tokenizer: Any, prompt: Any, answer: Any) -> list[int]:
    quiet = {"verbose": False}
    if isinstance(prompt, str):
        return tokenizer(prompt + (answer or ""), **quiet)["input_ids"]
    chat = prompt + (answer or [])
    return tokenizer.apply_chat_template(chat, add_generation_prompt=answer is None, tokenizer_kwargs=quiet)[
        "input_ids"
    ]
