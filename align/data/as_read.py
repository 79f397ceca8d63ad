"""Tokenizes pairs and completions as training reads them, so that the first step need not wait for the tokens of a large set.

Two things that training decides by tokens it must know before: which prompts leave no room for an answer, and which answers
of a pair truncation makes the same. Where the bytes of a row show that neither can be, as a token stands for at least one, its
tokens can wait; the others are tokenized at once.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from align.data.audit.encoding import Parted
from align.data.audit.lengths import IDS, PARTS
from align.data.audit.truncation import refuse_cut_to_same, refuse_none_left, say_left_out
from align.data.row_tokens import SHOWN, CompletionTokens, PairTokens, RowTokens, ids_of
from align.data.rows.columns import TEMPLATE
from align.data.rows.messages import SYSTEM_ROLES
from align.data.rows.tables import counts, is_text, messages, only_texts, slices
from align.data.rows.truncation import room, truncated
from align.errors import DataError
from align.findings import printable

logger = logging.getLogger(__name__)

LOOKED_AT = 100  # rows that show what a template adds to texts
SPARE = 16  # tokens a row may have more than its template adds to those rows, such as one for the beginning of a text


class AsRead(RowTokens):
    """A transform of `datasets.Dataset`: gives a slice of rows their token ids in place of their texts; other columns stay.

    Raises:
        DataError: When called, of a row that the chat template refuses, or whose prompt leaves no room for an answer.
    """

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The columns of tokens, and what else a row has."""
        parted = self.tokens_of(rows)
        for index, row in enumerate(parted):
            self.look(row, rows["prompt"][index])
        others = {name: column for name, column in rows.items() if name not in self.texts()}
        return self.columns(parted) | others

    def look(self, row: Parted, prompt: Any) -> None:
        """Refuse a row without room for an answer, and say what cannot be known before it is read."""
        if room(len(row.prompt), self.max_length) == 0:
            raise DataError(
                f"{self.where}: the {len(row.prompt)} tokens of a prompt fill max_length={self.max_length}, though it has fewer "
                f"bytes ({printable(str(prompt), SHOWN)}); remove it, or set data.streaming=false"
            )
        super().look(row, prompt)

    def refuse(self, made: Dataset, numbers: Int[np.ndarray, " rows"], left: int, total: int, *, trained: bool) -> None:
        """Refuse, before training, what the trainer refuses once all rows are tokenized.

        Args:
            made: Columns `prompt_ids` and those of answers, of rows that may have lost something and keep some of it.
            numbers: Of these rows in the set, from 1.
            left: Rows that keep some of their answers.
            total: Rows in all.
            trained: Whether they are learnt from.
        """
        raise NotImplementedError

    def of(self, dataset: Dataset, *, trained: bool = True) -> Dataset:
        """Normalised rows as the trainer takes them tokenized, each row tokenized when it is read.

        Args:
            dataset: `prompt` and answers, all texts or all messages. Other columns stay.
            trained: Whether rows are learnt from.

        Raises:
            DataError: If truncation leaves nothing to learn, naming rows; or if the template refuses one that had to be
                tokenized.
        """
        short = may_lose(dataset, self.tokenizer, self.max_length, self.sides)
        if not len(short):
            return dataset.with_transform(self)
        made = dataset.select(short).select_columns([name for name in dataset.column_names if name in self.texts()])
        made = made.map(
            lambda rows: ids_of(self.tokens_of(rows), self.sides), batched=True, remove_columns=made.column_names,
            desc=f"Tokenizing rows of {self.where} that may be cut",
        )  # fmt: skip
        prompts = np.concatenate([counts(part[IDS[0]]) for part in slices(made, IDS[:1])])
        roomy = prompts < self.max_length
        left = np.setdiff1d(np.arange(len(dataset)), short[~roomy])
        self.refuse(made.select(np.flatnonzero(roomy)), short[roomy] + 1, len(left), len(dataset), trained=trained)
        if len(left) < len(dataset):
            dataset = dataset.select(left)
        return dataset.with_transform(self)


class PairsAsRead(AsRead, PairTokens):
    """Pairs, as they are read."""

    def look(self, row: Parted, prompt: Any) -> None:
        """And say whether the two answers are the same."""
        super().look(row, prompt)
        one, other = (truncated(row.prompt, answer, self.max_length)[1] for answer in row.answers)
        if one == other:
            self.tell("the two answers of a pair are the same tokens: it gives no gradient", prompt)

    def refuse(self, made: Dataset, numbers: Int[np.ndarray, " rows"], left: int, total: int, *, trained: bool) -> None:
        """If none is left, or two answers are the same, which pairs that are not learnt from may be; says how many are left."""
        refuse_none_left(left, self.max_length, where=self.where)
        say_left_out(left, total, self.max_length, where=self.where)
        if trained:
            refuse_cut_to_same(made, self.max_length, where=self.where, numbers=numbers, total=left)


class CompletionsAsRead(AsRead, CompletionTokens):
    """Completions, as they are read."""

    def refuse(self, made: Dataset, numbers: Int[np.ndarray, " rows"], left: int, total: int, *, trained: bool) -> None:
        """If none is left; says how many are."""
        say_left_out(left, total, self.max_length, where=self.where)


def is_as_read(dataset: Any) -> bool:
    """Whether a data set is tokenized as it is read."""
    return isinstance(dataset, Dataset) and isinstance(dataset.format["format_kwargs"].get("transform"), AsRead)


def longest(dataset: Dataset, count: int) -> Int[np.ndarray, " rows"]:
    """The rows with the most bytes of prompt and both answers, at most `count`."""
    sizes = np.concatenate([sum(_bytes(part[name]) for name in PARTS) for part in slices(dataset, PARTS)])
    return np.sort(np.argsort(-sizes, kind="stable")[:count])


def may_lose(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, sides: Sequence[str] = PARTS[1:]
) -> Int[np.ndarray, " rows"]:
    """Rows whose prompt may fill `max_length` or whose two answers may be the same once cut, as far as bytes tell.

    A prompt of so many bytes has no more tokens, and what its template adds. Answers that are the same in their first k
    tokens are so in their first k bytes.
    """
    parts = ("prompt", *sides)
    if max_length is None or len(dataset) == 0:
        return np.zeros(0, dtype=np.int64)
    if set(TEMPLATE) & set(dataset.column_names) or not all(only_texts(dataset.features[part]) for part in parts):
        return np.arange(len(dataset))  # tools may be of any length
    try:
        once, each = _added(dataset.select(range(min(LOOKED_AT, len(dataset)))), tokenizer)
    except Exception:  # of a template that refuses a pair, which is told when it is tokenized
        return np.arange(len(dataset))
    found, start = [], 0
    for part in slices(dataset, parts):
        prompt, *answers = (_bytes(part[name]) for name in parts)
        template = once + each * _messages(part["prompt"])
        left = max_length - SPARE - prompt - template  # bytes that two answers must share to be cut alike
        rows = np.flatnonzero(np.minimum.reduce(answers) >= left)
        alike = [
            left[row] <= 0 or (len(sides) > 1 and _shared(*(part[name][row] for name in sides)) >= left[row])
            for row in map(int, rows)
        ]
        found.append(start + rows[np.array(alike, dtype=bool)])
        start += len(prompt)
    return np.concatenate(found)


def _added(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[float, float]:
    """Bytes that the template adds to a prompt at most: to any, and besides for each message; nothing to plain text."""
    prompts = list(dataset["prompt"])
    if isinstance(prompts[0], str):
        return 0.0, 0.0
    # without a system message, many templates add one of their own
    prompts += [prompt[1:] for prompt in prompts if prompt[0]["role"] in SYSTEM_ROLES and len(prompt) > 1]
    render: Any = tokenizer.apply_chat_template
    texts = render(prompts, tokenize=False, add_generation_prompt=True)
    own = [sum(len(message["content"].encode()) for message in prompt) for prompt in prompts]
    added = np.array([len(text.encode()) for text in texts]) - own
    turns = np.array([len(prompt) for prompt in prompts])
    return float(added[turns == turns.min()].max()), float((added / turns).max())


def _messages(column: Any) -> Any:
    return 0 if is_text(column) else counts(column)


def _bytes(column: Any) -> Int[np.ndarray, " rows"]:
    """Bytes of each text of a column, or of the contents of each list of messages; of those kept as JSON, of all of it."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if is_text(column):
        return pc.call_function("binary_length", [column]).to_numpy().astype(np.int64)
    bounds, _, contents = messages(column)
    sizes = np.concatenate(
        [[0], np.cumsum(pc.call_function("binary_length", [contents]).to_numpy(zero_copy_only=False))]
    )
    return (sizes[bounds[1:]] - sizes[bounds[:-1]]).astype(np.int64)


def _shared(one: Any, other: Any) -> int:
    """Bytes that two answers begin with alike."""
    texts = [value.as_py() for value in (one, other)]
    both = ["".join(str(m["content"]) for m in text) if isinstance(text, list) else text for text in texts]
    left, right = (np.frombuffer(text.encode(), dtype=np.uint8) for text in both)
    shorter = min(len(left), len(right))
    apart = np.flatnonzero(left[:shorter] != right[:shorter])
    return int(apart[0]) if len(apart) else shorter
