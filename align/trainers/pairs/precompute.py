"""Fills in the reference's log-probabilities, from the store or by one pass over what the store lacks."""

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset, IterableDataset, concatenate_datasets
from jaxtyping import Float64
from peft import PeftModel
from torch import Tensor
from tqdm.auto import tqdm
from trl import DPOTrainer as TRLDPOTrainer

from align.models.identity import log_probability_identity
from align.scoring.reference_store import ReferenceStore, sequence_key
from align.trainers.shared.reference import as_reference
from align.trainers.shared.scored import scoring_inputs
from align.trainers.shared.trl_contract import on_device, scores_reference

logger = logging.getLogger(__name__)

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
COLLATED = 64  # rows collated at a time to see what would be scored
SAVED = 32  # batches of each process between two writes


def has_reference(dataset: Any) -> bool:
    """Whether a data set has the reference's log-probabilities; one without named columns has not."""
    return set(COLUMNS) <= set(getattr(dataset, "column_names", None) or ())


def with_reference(trainer: Any, dataset: Dataset | IterableDataset, name: str, batch_size: int) -> Dataset:
    """The data set with the columns `ref_chosen_logps` and `ref_rejected_logps`, in nats, summed over each answer.

    Values come from `ReferenceStore` where it has them. The rest is computed in batches of similar lengths, each process
    its share, and stored as it is computed: a pass that is killed goes on where it was.

    Args:
        trainer: A `PreferenceTrainer`.
        dataset: Tokenized pairs.
        name: What to call the data set in messages.
        batch_size: Pairs per forward pass on one process.

    Raises:
        ValueError: If the data set is streamed, or the reference gives a value that is not finite.
    """
    if isinstance(dataset, IterableDataset):
        raise ValueError(
            f"precompute_ref_log_probs: {name} is streamed and has no rows to keep values for; switch it off"
        )
    if has_reference(dataset):
        return dataset
    began = time.perf_counter()
    accelerator = trainer.accelerator
    model = scores_reference(trainer)
    first = _collate(trainer, dataset, range(min(batch_size, len(dataset))))
    trainer.sharing.scorer(model, scoring_inputs(first), accelerator)  # decides whether prompts are shared
    # What the store lacks: each missing pair once, whatever rows hold it.
    store, keys, stored, rows = None, [], 0, []
    identity = _identity(trainer)  # by all: weights may be spread over them
    if accelerator.is_main_process:  # the others get what it finds, whatever their disk holds
        store = ReferenceStore(identity)
        keys = list(_keys(trainer, dataset))
        missing = np.isnan(store.get([key for pair in keys for key in pair])).reshape(-1, 2).any(axis=1)
        stored = len(keys) - int(missing.sum())
        new: dict[tuple[bytes, bytes], int] = {}
        for row in np.flatnonzero(missing).tolist():
            new.setdefault(keys[row], row)
        rows = list(new.values())
    [rows] = broadcast_object_list([rows])
    # The missing values, kept as they come.
    for found in _passes(trainer, dataset, rows, batch_size):
        if store is not None:
            store.add([key for row in found[:, 0].astype(int) for key in keys[row]], found[:, 1:].reshape(-1))
    # All values, from the store, to every process.
    values: Any = None
    if store is not None:
        values = store.get([key for pair in keys for key in pair]).reshape(-1, 2)
        logger.warning(
            "reference log-probabilities of %s: %d of %d pairs were in the store, %d computed, in %.1f s; %s holds %d answers, %.1f MB",
            name, stored, len(keys), len(rows), time.perf_counter() - began,
            store.path, len(store), store.nbytes / 1e6,
        )  # fmt: skip
    [values] = broadcast_object_list([values])
    columns = Dataset.from_dict(dict(zip(COLUMNS, values.T.tolist(), strict=True)))
    return concatenate_datasets([dataset, columns], axis=1)


def _identity(trainer: Any) -> dict[str, str]:
    """What determines the reference's log-probabilities, with the adapters on and off as the reference has them."""
    reference: Any = trainer.accelerator.unwrap_model(trainer.ref_model or trainer.model)
    own = trainer.ref_model is None and isinstance(reference, PeftModel)
    with as_reference(reference) if own else nullcontext():
        return log_probability_identity(reference, mixed_precision=trainer.accelerator.mixed_precision)


def _collate(trainer: TRLDPOTrainer, dataset: Dataset, rows: Any) -> dict[str, Tensor]:
    return on_device(trainer, trainer.data_collator([dataset[row] for row in rows]))


def _keys(trainer: TRLDPOTrainer, dataset: Dataset) -> Iterator[tuple[bytes, bytes]]:
    """Keys of both answers of each row, from what the collator makes of it: truncation included."""
    for start in range(0, len(dataset), COLLATED):
        rows = range(start, min(start + COLLATED, len(dataset)))
        batch = trainer.data_collator([dataset[row] for row in rows])
        names = ("input_ids", "attention_mask", "completion_mask")
        lists = zip(*(batch[name].tolist() for name in names), strict=True)
        sides = []
        for ids, real, scored in lists:
            present = [(token, bool(s)) for token, r, s in zip(ids, real, scored, strict=True) if r]
            sides.append(sequence_key([t for t, s in present if not s], [t for t, s in present if s]))
        yield from zip(sides[: len(rows)], sides[len(rows) :], strict=True)


def _passes(trainer: Any, dataset: Dataset, rows: list[int], size: int) -> Iterator[Float64[np.ndarray, "n 3"]]:
    """Row, chosen and rejected log-probability; every process makes as many forward passes as every other."""
    accelerator = trainer.accelerator
    lengths = {row: sum(len(dataset[row][f"{part}_ids"]) for part in ("prompt", "chosen", "rejected")) for row in rows}
    rows = sorted(rows, key=lambda row: -lengths[row])
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches += batches[-1:] * (-len(batches) % accelerator.num_processes)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    for start in tqdm(range(0, len(mine), SAVED), desc="reference", disable=not (mine and accelerator.is_main_process)):
        found: list[tuple[int, float, float]] = []
        for part in mine[start : start + SAVED]:
            logps = trainer.compute_ref_log_probs(scores_reference(trainer), _collate(trainer, dataset, part))
            found += zip(part, *(side.double().tolist() for side in logps), strict=True)
        table = np.array(gather_object(found), dtype=np.float64).reshape(-1, 3)
        bad = table[~np.isfinite(table).all(axis=1), 0].astype(int).tolist()
        if bad:
            raise ValueError(f"the reference's log-probabilities of rows {bad[:10]} are not finite; look at these rows")
        yield table
