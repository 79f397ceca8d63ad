"""Switches activation checkpointing on by measured need, since it costs another forward pass."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Int

from align.data.as_read import is_as_read, longest
from align.data.audit.lengths import IDS
from align.data.rows.tables import counts, slices
from align.data.rows.truncation import truncated_lengths
from align.losses.preference import sequence_logps
from align.scoring.memory import Activations, free_bytes, line_through, saved_bytes
from align.scoring.shared_prefix import SharedPrefixModel

from .base import hold_settings
from .reference import sharded
from .scored import score, scoring_inputs
from .trl_contract import on_device

logger = logging.getLogger(__name__)

SAMPLE = 1000  # rows whose lengths are counted where rows are tokenized as they are read
SHARE = 0.7  # of the free memory that activations may take; the rest is for gradients, logits and what else there is


def settle_checkpointing(trainer: Any) -> None:
    """Switch activation checkpointing on if the largest batch would not fit without, and say why.

    Where nothing can be measured (streamed data, sharded models) it is on, as TRL's default.
    """
    apart, data = sharded(trainer.accelerator), trainer.train_dataset
    if apart or not isinstance(data, Dataset) or len(data) == 0:
        reason, needed = "the model is sharded" if apart else "the data are streamed", True
    else:
        if is_as_read(data):  # the tokens of all are not known; the most bytes have about the most tokens
            data = data.select(longest(data, SAMPLE))
        lengths = lengths_of(data, trainer.args.max_length)
        activations, packed = measure(trainer, data, lengths)
        positions = largest_batch(lengths, trainer.args, packed=packed)
        need, free = activations.at(positions), free_bytes(trainer.accelerator.device)
        full = torch.tensor([need > SHARE * free], device=trainer.accelerator.device)
        needed = bool(trainer.accelerator.gather(full).any())
        reason = f"the largest batch ({positions} positions) keeps {need / 2**30:.2g} GiB for backward, {free / 2**30:.3g} GiB are free"
    if trainer.accelerator.is_main_process:
        level = logging.WARNING if needed else logging.INFO
        logger.log(level, "activation checkpointing is %s: %s", "on" if needed else "off", reason)
    if needed:
        trainer.args.activation_checkpointing = trainer.args.gradient_checkpointing = True
        trainer.model.enable_input_require_grads()
        hold_settings(trainer)


def lengths_of(data: Dataset, max_length: int | None) -> Int[np.ndarray, "pairs 3"]:
    """Tokens of prompt, chosen and rejected of each pair after truncation, read a slice at a time."""
    table = np.concatenate(list(_slices(data)))
    if max_length is not None:
        table = np.concatenate(truncated_lengths(table[:, :1], table[:, 1:], max_length), axis=1)
    return table


def _slices(data: Dataset) -> Iterator[Int[np.ndarray, "slice 3"]]:
    for part in slices(data, IDS):
        yield np.stack([counts(part[name]) for name in IDS], axis=1).astype(np.int64)


def positions_of(lengths: Int[np.ndarray, "pairs 3"], *, packed: bool) -> Int[np.ndarray, " pairs"]:
    """Positions that each pair costs: P - 1 + C + R in a packed row, two rows as long as the longer answer if padded."""
    prompt, chosen, rejected = lengths.T
    return prompt - 1 + chosen + rejected if packed else 2 * (prompt + np.maximum(chosen, rejected))


def largest_batch(lengths: Int[np.ndarray, "pairs 3"], args: Any, *, packed: bool) -> int:
    """Positions of the largest forward pass that can occur: the longest pairs together, within the token budget."""
    costs = np.sort(positions_of(lengths, packed=packed))[::-1]
    together = costs[: args.per_device_train_batch_size]
    total = int(together.sum()) if packed else int(together[0]) * len(together)
    budget = args.max_tokens_per_batch
    return total if budget is None else max(int(costs[0]), min(total, budget))


def measure(trainer: Any, data: Dataset, lengths: Int[np.ndarray, "pairs 3"]) -> tuple[Activations, bool]:
    """What a batch of the data keeps for backward, from one pair and then two, and whether rows are packed."""
    order = np.argsort(lengths.sum(axis=1), kind="stable")
    shorter, longer = order[len(order) // 4], order[(len(order) - 1) * 3 // 4]
    points = []
    packed = False
    for rows in ([shorter], [shorter, longer]):
        batch = on_device(trainer, trainer.data_collator([data[int(row)] for row in rows]))
        scorer = trainer.sharing.scorer(trainer.model, scoring_inputs(batch), trainer.accelerator)
        packed = isinstance(scorer, SharedPrefixModel)

        def forward(scorer: Any = scorer, batch: Any = batch) -> Any:
            with trainer.accelerator.autocast(), trainer.no_casts():
                scored, _ = score(scorer, batch)
            return sequence_logps(scored.token_logps, scored.mask).sum()

        kept = saved_bytes(forward, trainer.model)
        points.append((trainer.sharing.positions(scorer, batch)[0], kept))
    return line_through(*points), packed
