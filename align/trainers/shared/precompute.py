"""Fills in the reference's log-probabilities, from the store or by one pass over what the store lacks."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, IterableDataset, concatenate_datasets
from jaxtyping import Float64
from peft import PeftModel
from torch import Tensor
from tqdm.auto import tqdm

from align.models.identity import log_probability_identity
from align.scoring.reference_store import ReferenceStore, sequence_key

from .columns import sets_by_name
from .reference import as_reference
from .trl_contract import on_device, scores_reference

logger = logging.getLogger(__name__)

COLLATED = 64  # rows collated at a time to see what would be scored
SAVED = 32  # batches of each process between two writes


class Answers(NamedTuple):
    """Which answers of a row the reference scores."""

    columns: tuple[str, ...]
    """Where the log-probability of each is kept, in nats, summed over the answer."""
    parts: Callable[[dict[str, Tensor]], Sequence[Sequence[Tensor]]]
    """Of a collated batch, for each column: token ids, what is no padding, and what is scored, of shape (rows, time)."""


MASKED = ("input_ids", "attention_mask", "completion_mask")
PAIRS = Answers(
    ("ref_chosen_logps", "ref_rejected_logps"),
    lambda batch: list(zip(*(batch[name].chunk(2) for name in MASKED), strict=True)),
)


def has_reference(dataset: Any, answers: Answers = PAIRS) -> bool:
    """Whether a data set has the reference's log-probabilities; one without named columns has not."""
    return set(answers.columns) <= set(getattr(dataset, "column_names", None) or ())


def refuse_two_references(train: Any, evaluation: Any, *, where: str) -> None:
    """Refuse data sets of which some bring the reference's log-probabilities, and others would have them from the model.

    Sets without named columns are passed over.

    Raises:
        ValueError: With the data set.
    """
    known = {
        name: data for name, data in sets_by_name(train, evaluation).items() if getattr(data, "column_names", None)
    }
    for name, data in known.items() if "train_dataset" in known else ():
        if has_reference(data) != has_reference(train):
            raise ValueError(
                f"{where}: {name} and train_dataset: one of them has the columns {', '.join(PAIRS.columns)}, and the other would "
                "be held against another reference; give both such columns, or none"
            )


def with_reference(
    trainer: Any, dataset: Dataset | IterableDataset, name: str, batch_size: int, answers: Answers = PAIRS
) -> Dataset:
    """The data set with the reference's log-probabilities of its answers.

    Values come from `ReferenceStore` where it has them. The rest is computed in batches of similar lengths, each process
    its share, and stored as it is computed: a pass that is killed goes on where it was.

    Args:
        trainer: One whose `compute_ref_log_probs` gives, of a model and a batch, what each column holds.
        dataset: Tokenized rows.
        name: What to call the data set in messages.
        batch_size: Rows per forward pass on one process.
        answers: Which answers.

    Raises:
        ValueError: If the data set is streamed, or the reference gives a value that is not finite.
    """
    if isinstance(dataset, IterableDataset):
        raise ValueError(
            f"precompute_ref_log_probs: {name} is streamed and has no rows to keep values for; switch it off"
        )
    if has_reference(dataset, answers):
        return dataset
    began = time.perf_counter()
    accelerator = trainer.accelerator
    sides = len(answers.columns)
    # What the store lacks: each missing row once, however often it is there; the longest first.
    store, keys, stored, rows = None, [], 0, []
    identity = _identity(trainer)  # by all: weights may be spread over them
    if accelerator.is_main_process:  # the others get what it finds, whatever their disk holds
        store = ReferenceStore(identity)
        keys, lengths = zip(*_keys(trainer, dataset, answers), strict=True)
        missing = np.isnan(store.get([key for row in keys for key in row])).reshape(-1, sides).any(axis=1)
        stored = len(keys) - int(missing.sum())
        new: dict[tuple[bytes, ...], int] = {}
        for row in np.flatnonzero(missing).tolist():
            new.setdefault(keys[row], row)
        rows = sorted(new.values(), key=lambda row: -lengths[row])
    [rows] = broadcast_object_list([rows])
    # The missing values, kept as they come.
    for found in _passes(trainer, dataset, rows, batch_size, sides):
        if store is not None:
            store.add([key for row in found[:, 0].astype(int) for key in keys[row]], found[:, 1:].reshape(-1))
    # All values, from the store, to every process.
    values: Any = None
    if store is not None:
        values = store.get([key for row in keys for key in row]).reshape(-1, sides)
        logger.warning(
            "reference log-probabilities of %s: %d of %d rows were in the store, %d computed, in %.1f s; %s holds %d answers, %.1f MB",
            name, stored, len(keys), len(rows), time.perf_counter() - began,
            store.path, len(store), store.nbytes / 1e6,
        )  # fmt: skip
    [values] = broadcast_object_list([values])
    columns = Dataset.from_dict(dict(zip(answers.columns, values.T.tolist(), strict=True)))
    return concatenate_datasets([dataset, columns], axis=1)


def _identity(trainer: Any) -> dict[str, str]:
    """What determines the reference's log-probabilities, with the adapters on and off as the reference has them."""
    reference: Any = trainer.accelerator.unwrap_model(trainer.ref_model or trainer.model)
    own = trainer.ref_model is None and isinstance(reference, PeftModel)
    with as_reference(reference) if own else nullcontext():
        return log_probability_identity(reference, mixed_precision=trainer.accelerator.mixed_precision)


def collated(trainer: Any, dataset: Dataset, rows: Any) -> dict[str, Tensor]:
    """Some rows as the trainer's model reads them."""
    return on_device(trainer, trainer.data_collator([dataset[row] for row in rows]))


def _keys(trainer: Any, dataset: Dataset, answers: Answers) -> Iterator[tuple[tuple[bytes, ...], int]]:
    """Keys of the answers of each row, from what the collator makes of it, truncation included; and how many tokens are read."""
    for start in range(0, len(dataset), COLLATED):
        batch = trainer.data_collator([dataset[row] for row in range(start, min(start + COLLATED, len(dataset)))])
        parts = answers.parts(batch)
        keys = [[_key(*row) for row in zip(*(tensor.tolist() for tensor in part), strict=True)] for part in parts]
        lengths = torch.stack([part[1].sum(dim=1) for part in parts]).sum(dim=0)
        yield from zip(zip(*keys, strict=True), lengths.tolist(), strict=True)


def _key(ids: list[int], real: list[int], scored: list[int]) -> bytes:
    present = [(token, bool(s)) for token, r, s in zip(ids, real, scored, strict=True) if r]
    return sequence_key([t for t, s in present if not s], [t for t, s in present if s])


def _passes(
    trainer: Any, dataset: Dataset, rows: list[int], size: int, sides: int
) -> Iterator[Float64[np.ndarray, "n columns"]]:
    """Row and log-probabilities of its answers; every process makes as many forward passes as every other."""
    accelerator = trainer.accelerator
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches += batches[-1:] * (-len(batches) % accelerator.num_processes)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    for start in tqdm(range(0, len(mine), SAVED), desc="reference", disable=not (mine and accelerator.is_main_process)):
        found: list[tuple[float, ...]] = []
        for part in mine[start : start + SAVED]:
            logps = trainer.compute_ref_log_probs(scores_reference(trainer), collated(trainer, dataset, part))
            found += zip(part, *(side.double().tolist() for side in logps[:sides]), strict=True)
        table = np.array(gather_object(found), dtype=np.float64).reshape(-1, 1 + sides)
        bad = table[~np.isfinite(table).all(axis=1), 0].astype(int).tolist()
        if bad:
            raise ValueError(f"the reference's log-probabilities of rows {bad[:10]} are not finite; look at these rows")
        yield table
