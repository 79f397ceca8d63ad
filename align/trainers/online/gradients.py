"""Computes each objective's gradient from one forward pass, and their Gram matrix over all processes."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast
from jaxtyping import Float, Int
from torch import Tensor, nn

from align.trainers.shared.trl_contract import metrics_aside, policy_loss

_LAYER = re.compile(r"\.(\d+)\.")
CLIP_EPS = 1e-6
"""What PyTorch adds to a norm that it clips by."""


class Grams(NamedTuple):
    """Inner products of the objectives' gradients, in float64 on the CPU.

    Attributes:
        gram: Of the gradients of the whole batch. Its expectation is that of the exact gradients plus the covariance of
            their noise, which inflates it on small batches.
        halves: Of the gradients of one half of the prompts with those of the other, each scaled to the whole batch and
            the two orders averaged: without that bias. None if it was not asked for.
    """

    gram: Float[Tensor, "objectives objectives"]
    halves: Float[Tensor, "objectives objectives"] | None


def differentiated(model: nn.Module, layers: int | str) -> list[nn.Parameter]:
    """Trainable parameters of the last `layers` layers, of layers "FIRST-LAST", or of the whole model for "all".

    A layer's number is the first number in a parameter's name, and the first layer is 0. Parameters outside layers count with
    "all" only.

    Raises:
        ValueError: If no trainable parameter lies in such a layer, and `layers` is not "all".
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if layers == "all":
        return [p for _, p in trainable]
    numbers = [(int(found[1]), p) for name, p in trainable if (found := _LAYER.search(name))]
    there = sorted({number for number, _ in numbers})
    if isinstance(layers, str):
        first, last = map(int, layers.split("-"))
        there = [number for number in there if first <= number <= last]
    else:
        there = there[-layers:]
    if not there:
        raise ValueError(
            f"gradient_layers: {layers!r}, and no trainable parameter lies in such a numbered layer; set it to 'all'"
        )
    return [p for number, p in numbers if number in there]


def grams(
    trainer: Any,
    batches: Sequence[dict[str, Tensor]],
    advantages: Float[Tensor, "batch objectives"],
    *,
    layers: int | str,
    split: bool,
    as_published: bool = False,
) -> Grams:
    """Gram matrices of the objectives' policy gradients on a generation batch.

    The loss is given the advantages A c with a leaf c; the derivative of the loss with respect to c is the vector of the
    objectives' losses, and its gradients are what K losses would give, from one forward pass and K backward passes. KL,
    entropy and auxiliary losses do not depend on c and stay out of it.

    Every process must call it with as many micro-batches. Gradients are averaged over processes before the products.

    Args:
        trainer: A GRPO or RLOO trainer in training mode.
        batches: The micro-batches of this process, with `row`: where each completion is in `advantages`.
        advantages: Of all processes, on the CPU.
        layers: See `differentiated`.
        split: Also compute `halves`, which takes twice as many backward passes.
        as_published: As the authors' code of arXiv:2509.11452: gradients are summed over micro-batches, not averaged, with what
            the loss has besides (the KL penalty) in each; each is clipped to norm 1 over the whole model; `layers` are taken
            after that. Not with `split`. All gradients are held at once, of the whole model.
    """
    kept = differentiated(trainer.model, layers)
    parameters = differentiated(trainer.model, "all") if as_published else kept
    prompts = torch.arange(len(advantages)) // trainer.num_generations
    parts = [advantages]
    if split:
        second = (prompts % 2).to(advantages)[:, None]
        parts = [advantages * (1.0 - second), advantages * second]
    columns = torch.cat(parts, dim=1)
    sums = [torch.zeros(columns.size(1), p.numel(), device=p.device) for p in parameters]
    for batch in batches:
        chosen = columns[batch["row"].cpu()].to(batch["advantages"])
        for index, gradients in enumerate(_rows(trainer, batch, chosen, parameters, with_rest=as_published)):
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total[index] += gradient.flatten()
    gram = torch.zeros(columns.size(1), columns.size(1), dtype=torch.float64, device=trainer.accelerator.device)
    squares, held = torch.zeros_like(gram.diagonal()), {id(p) for p in kept}
    for p, total in zip(parameters, sums, strict=True):
        mean: Any = trainer.accelerator.reduce(total, "mean")
        squares += mean.square().sum(dim=1).double()
        if id(p) in held:
            gram += (mean @ mean.T).double()
    scale = trainer.current_gradient_accumulation_steps if trainer.loss_is_scaled_for_ga else 1
    if as_published:
        clipped = (1.0 / (squares.sqrt() * scale + CLIP_EPS)).clamp(max=1.0)
        gram *= torch.outer(clipped, clipped) * len(batches) ** 2
    agreed: Any = broadcast(gram)
    result = agreed.cpu() * (scale / len(batches)) ** 2
    if not split:
        return Grams(result, None)
    count = advantages.size(1)
    blocks = result.view(2, count, 2, count)
    share = float((prompts % 2).double().mean())
    cross = blocks[0, :, 1] / (share * (1.0 - share))
    return Grams(blocks.sum(dim=(0, 2)), (cross + cross.T) / 2)


def advantage_gram(advantages: Float[Tensor, "batch objectives"]) -> Float[Tensor, "objectives objectives"]:
    """A^T A / batch: the Gram matrix of gradients if every completion pulled on weights of its own. No backward pass."""
    return advantages.T @ advantages / len(advantages)


def share_of_step(trainer: Any) -> float:
    """What a sum over a generation batch is multiplied by, so that each of its optimizer steps has a mean of that size."""
    return trainer.args.steps_per_generation / trainer.current_gradient_accumulation_steps


def with_advantages(batch: dict[str, Tensor], advantages: Float[Tensor, " rows"]) -> dict[str, Tensor]:
    """The micro-batch with other advantages: (rows,), or (rows, time) where it has a `token_mask`."""
    mask = batch.get("token_mask")
    return batch | {"advantages": advantages if mask is None else advantages[:, None] * mask}


def token_mask(completion_mask: Int[Tensor, "batch time"], *, always: int, share: float) -> Float[Tensor, "batch time"]:
    """1 for the tokens that are learnt from: the first `always`, and of the others a random share (S-GRPO, arXiv:2504.20834).

    Divisors of the loss count all tokens, as without it; what the paper saves in memory is not saved.
    """
    drawn = torch.rand(completion_mask.shape, device=completion_mask.device) < share
    drawn[:, :always] = True
    return drawn.float()


def _rows(
    trainer: Any,
    batch: dict[str, Tensor],
    advantages: Float[Tensor, "rows objectives"],
    parameters: list[nn.Parameter],
    *,
    with_rest: bool = False,
) -> Iterator[tuple[Tensor | None, ...]]:
    """Gradients of each objective's loss; `with_rest` adds to each what the loss has besides.

    The loss is of degree 1 in the advantages but for that rest, so the rest is the loss less Σ c dL/dc (Euler).
    """
    coefficients = torch.ones(advantages.size(1), dtype=advantages.dtype, device=advantages.device, requires_grad=True)
    with metrics_aside(trainer), trainer.compute_loss_context_manager():
        loss = policy_loss(trainer, with_advantages(batch, advantages @ coefficients))
        (losses,) = torch.autograd.grad(loss, coefficients, create_graph=True)
        if with_rest:
            losses = losses + (loss - losses.sum())
    for index, of_one in enumerate(losses):
        yield torch.autograd.grad(of_one, parameters, retain_graph=index + 1 < len(losses), allow_unused=True)
