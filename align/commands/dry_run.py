"""Estimates what a run will cost, in time and memory, from a few real steps at three lengths."""

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.building import build_trainer
from align.data import load_data
from align.recipe.loading import Recipe
from align.scoring.flops import Architecture, step_flops
from align.trainers.shared.checkpointing import largest_batch, lengths_of, positions_of

QUANTILES = (0.1, 0.5, 0.9)
REPETITIONS = 3
SAMPLE = 2000  # pairs whose FLOPs stand for all
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost:
    """A prediction. Seconds and bytes are of one process; evaluations and checkpoints are not included."""

    pairs: int
    steps: int
    packed: bool
    checkpointing: bool
    teraflops_per_step: float
    seconds_per_step: float
    reference_seconds: float
    peak_bytes: int

    @property
    def hours(self) -> float:
        """Reference pass and all steps."""
        return (self.reference_seconds + self.steps * self.seconds_per_step) / 3600

    def __str__(self) -> str:
        """In lines for people."""
        rows = "packed, each prompt once" if self.packed else "padded, each prompt once per answer"
        once = f" and {self.reference_seconds:.0f} s for the reference once" if self.reference_seconds else ""
        return (
            f"  rows: {rows}; activation checkpointing: {'on' if self.checkpointing else 'off'}\n"
            f"  predicted: {self.steps} steps of {self.seconds_per_step:.3g} s ({self.teraflops_per_step:.3g} TFLOP)"
            f"{once}, {self.hours:.2g} h in all without evaluations\n"
            f"  predicted peak memory: {self.peak_bytes / 2**30:.2f} GiB of each process"
        )


def predict(recipe: Recipe) -> Cost:
    """Load the model of a recipe, take some training steps on pairs of three lengths, and extrapolate.

    Seconds are fitted as a line in the FLOPs of a batch, memory as a line in its positions. Nothing is written.
    """
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    stored = recipe.train.precompute_ref_log_probs
    recipe.train.precompute_ref_log_probs = False
    trainer, _ = build_trainer(recipe, data.train, {})
    trainer.first_step = None  # stands in for no run, and stored values are made up here
    args: Any = trainer.args
    lengths = lengths_of(trainer.train_dataset, args.max_length)
    # Real steps at three lengths, after one that warms up.
    run = _Steps(trainer, online=args.reads_reference() and not (stored or recipe.ref.kind == "cached"))
    order = np.argsort(positions_of(lengths, packed=True), kind="stable")
    groups = [_around(order, quantile, args.per_device_train_batch_size) for quantile in QUANTILES]
    run.step(groups[0])  # warms up, and settles how rows are scored
    packed = run.packed
    measured = [run.step(rows) for rows in groups]
    policy: Any = trainer.model
    architecture = Architecture.of(policy)

    def flops(rows: np.ndarray) -> float:
        return step_flops(
            architecture, [tuple(row) for row in lengths[rows].tolist()], shared=packed,
            checkpointing=bool(args.gradient_checkpointing), reference_online=run.online,
        )  # fmt: skip

    # What a mean batch of the whole data costs, by the line through the measured steps.
    rng = np.random.default_rng(0)
    drawn = rng.permutation(len(lengths))[:SAMPLE]
    size = args.per_device_train_batch_size
    batches = [drawn[start : start + size] for start in range(0, len(drawn) - size + 1, size)] or [drawn]
    mean_flops = statistics.mean(map(flops, batches))
    base, slope = _line([flops(rows) for rows in groups], [seconds for seconds, _ in measured])
    floor, per_position = _line(
        [_positions(lengths, rows, packed=packed) for rows in groups], [peak for _, peak in measured]
    )
    # From a batch to the run.
    micro = args.gradient_accumulation_steps
    per_epoch = math.ceil(len(lengths) / (size * micro * args.world_size))
    return Cost(
        pairs=len(lengths),
        steps=args.max_steps if args.max_steps > 0 else math.ceil(per_epoch * args.num_train_epochs),
        packed=packed,
        checkpointing=bool(args.gradient_checkpointing),
        teraflops_per_step=micro * mean_flops / 1e12,
        seconds_per_step=micro * (base + slope * mean_flops),
        reference_seconds=len(lengths) / (size * args.world_size) * run.reference(groups[1]) if stored else 0.0,
        peak_bytes=int(floor + per_position * largest_batch(lengths, args, packed=packed)),
    )


class _Steps:
    """Training steps on chosen rows, timed."""

    def __init__(self, trainer: Any, *, online: bool) -> None:
        self.trainer, self.online = trainer, online
        trainer.current_gradient_accumulation_steps = 1
        if trainer.args.gradient_checkpointing:
            trainer.model.activation_checkpointing_enable(trainer.args.activation_checkpointing_kwargs)
        trainer.create_optimizer()
        self.model, self.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        self.packed = False

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        dataset = self.trainer.train_dataset
        return self.trainer._prepare_inputs(self.trainer.data_collator([dataset[int(row)] for row in rows]))

    def step(self, rows: np.ndarray) -> tuple[float, float]:
        """Seconds (the least of some repetitions) and peak bytes of a step on these rows, and of the look at it before."""
        batch = self.batch(rows)
        if not self.online:
            zeros = torch.zeros(len(rows), device=batch["input_ids"].device)
            batch |= {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}
        seconds = []
        look = getattr(self.trainer, "look_first", None)  # of losses that depend on the whole step
        _reset_peak(self.trainer.accelerator.device)
        for _ in range(REPETITIONS):
            began = time.perf_counter()
            seen = [dict(batch)] if look is None else look([dict(batch)])
            self.trainer.training_step(self.model, seen[0])
            self.optimizer.step()
            self.optimizer.zero_grad()
            _wait(self.trainer.accelerator.device)
            seconds.append(time.perf_counter() - began)
        self.packed = self.trainer.sharing.packs(self.model, self.trainer.accelerator)
        return min(seconds), _peak(self.trainer.accelerator.device)

    def reference(self, rows: np.ndarray) -> float:
        """Seconds of a reference pass over these rows."""
        batch, seconds = self.batch(rows), []
        for _ in range(REPETITIONS):
            began = time.perf_counter()
            self.trainer.compute_ref_log_probs(self.trainer.ref_model or self.trainer.model, batch)
            _wait(self.trainer.accelerator.device)
            seconds.append(time.perf_counter() - began)
        return min(seconds)


def _around(order: np.ndarray, quantile: float, size: int) -> np.ndarray:
    """A batch of pairs about as long as that share of all."""
    start = min(int(quantile * len(order)), max(len(order) - size, 0))
    return order[start : start + size]


def _positions(lengths: np.ndarray, rows: np.ndarray, *, packed: bool) -> float:
    costs = positions_of(lengths[rows], packed=packed)
    return float(costs.sum() if packed else costs.max() * len(rows))


def _line(x: list[float], y: list[float]) -> tuple[float, float]:
    """Least squares; neither part is negative."""
    slope, base = np.polyfit(x, y, 1) if max(x) > 1.05 * min(x) else (0.0, max(y))
    if slope < 0:
        return float(max(y)), 0.0
    if base < 0:
        return 0.0, float(np.dot(x, y) / np.dot(x, x))
    return float(base), float(slope)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5")


def _peak(device: torch.device) -> float:
    """Peak bytes since `_reset_peak`: of the device, or of the process on Linux; NaN elsewhere."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    if not STATUS.exists():
        return math.nan
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024
