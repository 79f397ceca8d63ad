"""Makes on a toy what the Trainer makes of a recipe's settings, so that what it would refuse is told beforehand.

Optimizer, schedule, batches, checkpoints of activations: transformers and torch check their settings where they are used,
which is after the weights are loaded.
"""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from transformers import Trainer, get_scheduler

from align.findings import Finding, printable
from align.recipe.loading import Recipe

OF_THEIR_OWN = ("galore", "apollo", "lomo", "muon", "dion", "bnb", "8bit", "4bit", "paged", "torchao", "anyprecision")
"""Parts of names of optimizers that need a real model, or a GPU."""
Trial = Callable[[Any, int], object]


def _optimizer(args: Any, steps: int) -> torch.optim.Optimizer:
    toy = nn.Linear(2, 2)
    try:
        make, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, toy)  # pyright: ignore[reportArgumentType]
    except ImportError:
        raise
    except Exception:
        if _is_plain(args):
            raise
        return torch.optim.SGD(toy.parameters(), lr=args.learning_rate)
    return make(toy.parameters(), **kwargs) if _is_plain(args) else torch.optim.SGD(toy.parameters(), lr=0.1)


def _is_plain(args: Any) -> bool:
    return not any(part in str(args.optim.value) for part in OF_THEIR_OWN)


def _schedule(args: Any, steps: int) -> None:
    if args.lr_scheduler_type.value == "reduce_lr_on_plateau":
        return
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=args.learning_rate),
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=dict(args.lr_scheduler_kwargs or {}),
    )
    for rule in getattr(scheduler, "lr_lambdas", ()):
        for step in (0, 1, steps // 2, steps):
            if not 0 <= float(rule(step)) < float("inf"):
                raise ValueError(f"the learning rate is {float(rule(step)):g} times its value at step {step}")


def _loader(args: Any, steps: int) -> None:
    DataLoader(
        range(8),  # pyright: ignore[reportArgumentType]
        batch_size=args.per_device_train_batch_size,
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
    )


def _workers(args: Any, steps: int) -> None:
    count = getattr(args, "dataset_num_proc", None)
    if count is not None and count < 0:
        raise ValueError(f"must not be negative, got {count}")


def _padding(args: Any, steps: int) -> None:
    multiple = getattr(args, "pad_to_multiple_of", None)
    if multiple is not None and multiple < 1:
        raise ValueError(f"must be at least 1, got {multiple}")


def _activations(args: Any, steps: int) -> None:
    if args.gradient_checkpointing and args.gradient_checkpointing_kwargs:
        kwargs = {"use_reentrant": False, **args.gradient_checkpointing_kwargs}
        checkpoint(torch.square, torch.ones(1, requires_grad=True), **kwargs)


def _backend(args: Any, steps: int) -> None:
    if args.torch_compile_backend is not None:
        DynamoBackend(args.torch_compile_backend.upper())


def _level(args: Any, steps: int) -> None:
    args.get_process_log_level()


TRIALS: tuple[tuple[str, Trial], ...] = (
    ("train.optim", _optimizer),
    ("train.lr_scheduler_kwargs", _schedule),
    ("train.dataloader_num_workers", _loader),
    ("train.dataset_num_proc", _workers),
    ("train.pad_to_multiple_of", _padding),
    ("train.gradient_checkpointing_kwargs", _activations),
    ("train.torch_compile_backend", _backend),
    ("train.log_level", _level),
)
"""By the setting that is likely at fault."""


def inspect_settings(recipe: Recipe, steps: int) -> list[Finding]:
    """Settings of training that the libraries behind the Trainer refuse.

    Args:
        recipe: The recipe.
        steps: Optimizer steps of the run.
    """
    found = []
    rng = torch.get_rng_state()  # toys have weights
    for where, trial in TRIALS:
        try:
            trial(recipe.train, max(steps, 1))
        except Exception as error:  # whatever they raise, training would end with it
            said = printable(" ".join(str(error).split()) or repr(error), 200)
            message = said if isinstance(error, ValueError) else f"{type(error).__name__}: {said}"
            found.append(Finding("error", "refused-setting", where, message, "mend it, or leave it out"))
    torch.set_rng_state(rng)
    return found
