"""Tokenizes preference pairs as training reads them, so that the first step need not wait for the tokens of a large set.

Two things that training decides by tokens it must know before: which prompts leave no room for an answer, and which answers
truncation makes the same. Where the bytes of a pair show that neither can be, as a token stands for at least one, its tokens
can wait; the others are tokenized at once.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from align.data.audit.lengths import IDS, PARTS
from align.data.audit.tokens import Encoded, encode
from align.data.audit.truncation import refuse_cut_to_same, refuse_none_left
from align.data.rows.columns import TEMPLATE
from align.data.rows.messages import SYSTEM_ROLES
from align.data.rows.tables import counts, is_text, messages, only_texts, slices
from align.data.rows.truncation import room, truncated
from align.errors import DataError
from align.findings import printable

logger = logging.getLogger(__name__)

TEXTS = (*PARTS, *TEMPLATE)
"""Columns that rows are tokenized from."""
LOOKED_AT = 100  # rows that show what a template adds to texts
SPARE = 16  # tokens a pair may have more than its template adds to those rows, such as one for the beginning of a text
SHOWN = 80  # characters of a prompt that a message quotes


class AsRead:
    """A transform of `datasets.Dataset`: gives a slice of pairs their token ids in place of their texts; other columns stay.

    Args:
        tokenizer: The model's.
        max_length: Tokens after which the trainer cuts.
        where: What to call the data set.

    Raises:
        DataError: When called, of a pair that the chat template refuses, or whose prompt leaves no room for an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None, where: str) -> None:
        self.tokenizer, self.max_length, self.where = tokenizer, max_length, where
        self._told: set[str] = set()

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Columns `prompt_ids`, `chosen_ids` and `rejected_ids`, as TRL's DPOTrainer makes them, and what else a row has."""
        pairs = tokens_of(rows, self.tokenizer, self.where)
        for index, pair in enumerate(pairs):
            self._look(pair, rows["prompt"][index])
        others = {name: column for name, column in rows.items() if name not in TEXTS}
        return _ids(pairs) | others

    def _look(self, pair: Encoded, prompt: Any) -> None:
        if room(len(pair.prompt), self.max_length) == 0:
            raise DataError(
                f"{self.where}: the {len(pair.prompt)} tokens of a prompt fill max_length={self.max_length}, though it has fewer "
                f"bytes ({printable(str(prompt), SHOWN)}); remove it, or set data.streaming=false"
            )
        if pair.left_out:
            self._tell(
                "the end of a prompt is other tokens before an answer than alone, and is left out: training sees another "
                "context than sampling; end prompts on a token boundary",
                prompt,
            )
        one, other = (truncated(pair.prompt, answer, self.max_length)[1] for answer in (pair.chosen, pair.rejected))
        if one == other:
            self._tell("the two answers of a pair are the same tokens: it gives no gradient", prompt)

    def _tell(self, message: str, prompt: Any) -> None:
        """Once each, of the first row that shows it."""
        if message not in self._told:
            self._told.add(message)
            logger.warning("%s: %s (%s)", self.where, message, printable(str(prompt), SHOWN))


def tokens_of(rows: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, where: str) -> list[Encoded]:
    """`encode`, of columns as `datasets` gives them.

    Raises:
        DataError: If the chat template refuses a pair.
    """
    texts = {name: list(column) for name, column in rows.items() if name in TEXTS}
    try:
        return encode(texts, tokenizer)
    except Exception as error:  # a template may raise anything
        raise DataError(
            f"{where}: the chat template refuses a pair among {len(texts['prompt'])} ({printable(str(error))}); "
            "`alignkit check --full` names the rows"
        ) from error


def tokenized_as_read(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, *, where: str, trained: bool = True
) -> Dataset:
    """Normalised pairs as a trainer takes them tokenized, each row tokenized when it is read.

    Args:
        dataset: Pairs: `prompt`, `chosen`, `rejected`, all texts or all messages. Other columns stay.
        tokenizer: The model's.
        max_length: Tokens after which the trainer cuts; a prompt that fills it is left out.
        where: What to call the data set.
        trained: Whether pairs are learnt from. Only then one whose answers truncation makes the same is refused.

    Raises:
        DataError: If truncation makes the answers of a pair the same, naming the pairs, or leaves none; or if the template
            refuses one that had to be tokenized.
    """
    short = may_lose(dataset, tokenizer, max_length)
    if len(short):
        made = dataset.select(short).select_columns([name for name in dataset.column_names if name in TEXTS])
        made = made.map(
            lambda rows: _ids(tokens_of(rows, tokenizer, where)), batched=True, remove_columns=made.column_names,
            desc=f"Tokenizing pairs of {where} that may be cut",
        )  # fmt: skip
        prompts = np.concatenate([counts(part[IDS[0]]) for part in slices(made, IDS[:1])])
        roomy = prompts < max_length
        left = np.setdiff1d(np.arange(len(dataset)), short[~roomy])
        if trained:
            refuse_none_left(len(left), max_length, where=where)
            refuse_cut_to_same(
                made.select(np.flatnonzero(roomy)), max_length, where=where, numbers=short[roomy] + 1, total=len(left)
            )
        if len(left) < len(dataset):
            dataset = dataset.select(left)
    return dataset.with_transform(AsRead(tokenizer, max_length, where))


def _ids(pairs: list[Encoded]) -> dict[str, list[list[int]]]:
    return {name: [pair[part] for pair in pairs] for part, name in enumerate(IDS)}


def is_as_read(dataset: Any) -> bool:
    """Whether a data set is tokenized as it is read."""
    return isinstance(dataset, Dataset) and isinstance(dataset.format["format_kwargs"].get("transform"), AsRead)


def longest(dataset: Dataset, count: int) -> Int[np.ndarray, " rows"]:
    """The rows with the most bytes of prompt and both answers, at most `count`."""
    sizes = np.concatenate([sum(_bytes(part[name]) for name in PARTS) for part in slices(dataset, PARTS)])
    return np.sort(np.argsort(-sizes, kind="stable")[:count])


def may_lose(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> Int[np.ndarray, " rows"]:
    """Rows whose prompt may fill `max_length` or whose answers may be the same once cut, as far as bytes tell.

    A prompt of so many bytes has no more tokens, and what its template adds. Answers that are the same in their first k
    tokens are so in their first k bytes.
    """
    if max_length is None or len(dataset) == 0:
        return np.zeros(0, dtype=np.int64)
    if set(TEMPLATE) & set(dataset.column_names) or not all(only_texts(dataset.features[part]) for part in PARTS):
        return np.arange(len(dataset))  # tools may be of any length
    try:
        once, each = _added(dataset.select(range(min(LOOKED_AT, len(dataset)))), tokenizer)
    except Exception:  # of a template that refuses a pair, which is told when it is tokenized
        return np.arange(len(dataset))
    found, start = [], 0
    for part in slices(dataset, PARTS):
        prompt, chosen, rejected = (_bytes(part[name]) for name in PARTS)
        template = once + each * _messages(part["prompt"])
        left = max_length - SPARE - prompt - template  # bytes that both answers must share to be cut alike
        rows = np.flatnonzero(np.minimum(chosen, rejected) >= left)
        alike = [
            left[row] <= 0 or _shared(part["chosen"][row], part["rejected"][row]) >= left[row] for row in map(int, rows)
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
