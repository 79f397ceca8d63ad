"""Takes a half step and puts weights and optimizer back as they were (EGPO, arXiv:2503.08942)."""

import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def put_back(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Whatever steps are taken within it, weights, moments, counts and groups are then as they were, to the bit.

    Gradients are gone afterwards. The copies need as much memory as the weights that are trained and their moments.
    """
    weights = [parameter.detach().clone() for parameter in parameters]
    state = {p: {name: _copied(value) for name, value in kept.items()} for p, kept in optimizer.state.items()}
    groups = [{n: copy.deepcopy(v) for n, v in group.items() if n != "params"} for group in optimizer.param_groups]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, weights, strict=True):
                parameter.copy_(before)
                parameter.grad = None
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, before in zip(optimizer.param_groups, groups, strict=True):
            for name in [name for name in group if name != "params" and name not in before]:
                del group[name]
            group.update(before)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)


@contextlib.contextmanager
def half_step(trainer: Any, batches: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Within it the policy is where a step on these micro-batches leads; then it is where it was.

    The step is the one that the Trainer would take: mean over all micro-batches and processes, clipped, at the rate of now.
    One whose loss or gradient is not finite is left out.

    Args:
        trainer: An `OnlinePreferenceTrainer` that trains.
        batches: All micro-batches of a step.
    """
    model, accelerator = trainer.model_wrapped, trainer.accelerator
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = getattr(
        trainer.optimizer, "optimizer", trainer.optimizer
    )  # accelerate's waits for the last micro-batch
    with put_back(parameters, optimizer):
        losses: list[Tensor] = []
        for number, batch in enumerate(batches, start=1):
            alone = number < len(batches)
            with accelerator.no_sync(model) if alone else contextlib.nullcontext():
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(model, batch)
                accelerator.backward(loss)
            losses.append(loss.detach())
        trainer.hold_back()
        wrong = trainer.guard.what_is_wrong(losses, [p.grad for p in parameters if p.grad is not None])
        if wrong is None:
            if trainer.args.max_grad_norm:
                accelerator.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
            optimizer.step()
        else:
            logger.error("step %d: no half step is taken: %s", trainer.state.global_step + 1, wrong)
        optimizer.zero_grad()
        yield
