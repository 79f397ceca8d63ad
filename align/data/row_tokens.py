"""Makes the tokens that trainers learn from, of many rows at a time.

TRL's trainers tokenize one row after another, and read all rows again for each of their further passes. The tokens here are
the same, in the same columns (`_prepare_dataset` of each trainer in trl 1.16); a test holds them to TRL's.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from jaxtyping import Bool
from transformers import PreTrainedTokenizerBase

from align.data.audit.encoding import SLICE, Parted, encode_sides, encode_wholes
from align.data.audit.lengths import IDS, PARTS
from align.data.kept import reading_code
from align.data.pause import collector_paused
from align.data.rows.columns import TEMPLATE
from align.data.rows.tables import counts, listed, slices
from align.errors import DataError
from align.findings import printable

logger = logging.getLogger(__name__)

NOT_LEARNT = -100  # the label of a token that is only read
SHOWN, SHOWN_ERROR = 80, 300  # characters of a prompt, or of an error, that a message quotes


class RowTokens:
    """Makes token ids of normalised rows: `prompt` and answers, all texts or all lists of messages.

    Args:
        tokenizer: The model's.
        max_length: Tokens after which the trainer cuts, or beyond which it leaves rows out.
        where: What to call the data set.
    """

    sides: ClassVar[tuple[str, ...]]
    """The columns of answers."""
    made_before: ClassVar[tuple[str, ...]] = ()
    """Columns of which TRL makes something else than of texts alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None, where: str) -> None:
        self.tokenizer, self.max_length, self.where = tokenizer, max_length, where
        self._told: set[str] = set()

    @classmethod
    def texts(cls) -> tuple[str, ...]:
        """Columns that rows are tokenized from."""
        return ("prompt", *cls.sides, *TEMPLATE)

    @classmethod
    def takes(cls, dataset: Any, tokenizer: Any) -> bool:
        """Whether these are rows in memory or on disk, with their texts, for a tokenizer of texts."""
        names = set(dataset.column_names) if isinstance(dataset, Dataset) else set()
        has = {"prompt", *cls.sides} <= names and not names & set(cls.made_before)
        return has and dataset.format["type"] in (None, "python") and isinstance(tokenizer, PreTrainedTokenizerBase)

    def tokens_of(self, rows: Mapping[str, Any]) -> list[Parted]:
        """`encode`, of columns as `datasets` gives them.

        Raises:
            DataError: If the chat template refuses a row, or the tokenizer has no token that ends an answer.
        """
        texts = {name: list(column) for name, column in rows.items() if name in self.texts()}
        try:
            return self.encode(texts)
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from None
        except Exception as error:  # a template may raise anything
            what = "tokenizer" if isinstance(texts["prompt"][0], str) else "chat template"
            raise DataError(
                f"{self.where}: the {what} refuses a row among {len(texts['prompt'])} ({printable(str(error), SHOWN_ERROR)}); "
                "`alignkit check --full` names the rows"
            ) from error

    def encode(self, texts: Mapping[str, list[Any]]) -> list[Parted]:
        """Prompts and answers apart."""
        return encode_sides(texts, self.tokenizer, self.sides)

    def columns(self, rows: Sequence[Parted]) -> dict[str, list[Any]]:
        """The columns of tokens that the trainer reads: prompts and answers apart and whole, which it cuts."""
        return ids_of(rows, self.sides)

    def kept(self, table: Any) -> Bool[np.ndarray, " rows"]:
        """Whether the trainer learns from each row of an Arrow table that has the columns of tokens; all, without `max_length`."""
        return counts(table[IDS[0]]) < self.max_length

    def look(self, row: Parted, prompt: Any) -> None:
        """Say what is odd about the tokens of a row."""
        if row.left_out:
            self.tell(
                "the end of a prompt is other tokens before an answer than alone, and is left out: training sees another "
                "context than sampling; end prompts on a token boundary",
                prompt,
            )

    def tell(self, message: str, prompt: Any) -> None:
        """Once each, of the first row that shows it."""
        if message not in self._told:
            self._told.add(message)
            logger.warning("%s: %s (%s)", self.where, message, printable(str(prompt), SHOWN))

    def at_once(self, dataset: Dataset, processes: int | None = None) -> Dataset:
        """The rows that the trainer learns from, with their tokens; `datasets` keeps them for the next run where it keeps the rows.

        Args:
            dataset: Rows that `takes` says yes to. Their columns stay.
            processes: That share the work; the one that asks, by default.

        Raises:
            DataError: If there is no row, or the chat template refuses one.
        """
        if not len(dataset):
            raise DataError(f"{self.where}: there is no row")
        state = PartialState()
        with (
            collector_paused(),
            state.main_process_first(),
            state.local_main_process_first(),
        ):  # others read what `datasets` kept
            made = dataset.map(
                self._slice, batched=True, batch_size=SLICE, num_proc=processes, desc=f"Tokenizing {self.where}",
                fn_kwargs={"made_by": reading_code()},
            )  # fmt: skip
            if self.max_length is None:
                return made
            kept = np.concatenate([self.kept(part) for part in slices(made, list(self.columns([])))])
            return made if kept.all() else made.select(np.flatnonzero(kept))

    def _slice(self, rows: Mapping[str, Any], made_by: str) -> dict[str, list[Any]]:
        parted = self.tokens_of(rows)
        for row, prompt in zip(parted, rows["prompt"], strict=True):
            self.look(row, prompt)
        return self.columns(parted)


class PairTokens(RowTokens):
    """Pairs as TRL's DPOTrainer makes them: `prompt_ids`, `chosen_ids` and `rejected_ids`, whole."""

    sides = PARTS[1:]


class RewardTokens(RowTokens):
    """Pairs as TRL's RewardTrainer makes them: `chosen_ids` and `rejected_ids` are each the prompt and an answer."""

    sides = PARTS[1:]
    made_before = ("chosen_ids", "rejected_ids", "chosen_input_ids", "rejected_input_ids")

    def encode(self, texts: Mapping[str, list[Any]]) -> list[Parted]:
        """The prompt is part of each answer: where one ends and the other begins makes no difference."""
        return [
            Parted([], list(wholes), [])
            for wholes in zip(*encode_wholes(texts, self.tokenizer, self.sides), strict=True)
        ]

    def columns(self, rows: Sequence[Parted]) -> dict[str, list[Any]]:
        """Whole: longer ones are left out."""
        return {f"{side}_ids": [row.answers[n] for row in rows] for n, side in enumerate(self.sides)}

    def kept(self, table: Any) -> Bool[np.ndarray, " rows"]:
        """Both sides are within `max_length`."""
        return np.logical_and.reduce([counts(table[f"{side}_ids"]) <= self.max_length for side in self.sides])


class CompletionTokens(RowTokens):
    """Completions as TRL's SFTTrainer makes them, which learns no token of a prompt: `input_ids` and `labels`, cut."""

    sides = ("completion",)
    made_before = ("input_ids", "labels", "assistant_masks", "completion_mask")

    def columns(self, rows: Sequence[Parted]) -> dict[str, list[Any]]:
        """Cut as the trainer would have cut them."""
        whole = [(one.prompt, one.answers[0]) for one in rows]
        return {
            "input_ids": [(prompt + answer)[: self.max_length] for prompt, answer in whole],
            "labels": [([NOT_LEARNT] * len(prompt) + answer)[: self.max_length] for prompt, answer in whole],
        }

    def kept(self, table: Any) -> Bool[np.ndarray, " rows"]:
        """The last label is that of a token to learn."""
        labels, bounds = listed(table["labels"])
        some = np.diff(bounds) > 0
        some[some] = labels[bounds[1:][some] - 1] != NOT_LEARNT
        return some


class LabelledTokens(RowTokens):
    """Completions as TRL's KTOTrainer makes them: `prompt_ids` and `completion_ids`, whole."""

    sides = ("completion",)


def ids_of(rows: Sequence[Parted], sides: Sequence[str]) -> dict[str, list[list[int]]]:
    """Prompts and answers apart."""
    answers = {f"{side}_ids": [row.answers[n] for row in rows] for n, side in enumerate(sides)}
    return {IDS[0]: [row.prompt for row in rows]} | answers
