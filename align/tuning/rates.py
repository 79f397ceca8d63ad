"""Gives the factor B of LoRA a learning rate of its own (LoRA+, arXiv:2402.12354)."""

from typing import Any

from torch import nn

SECOND_FACTORS = ("lora_B.", "lora_embedding_B.")


def faster_b(optimizer: Any, model: nn.Module, ratio: float, *, where: str) -> None:
    """Move B into parameter groups whose rate is `ratio` times that of A; nothing else of a group changes.

    On linear layers that is what PEFT's `create_loraplus_optimizer` makes, with the Trainer's weight decay. It differs where
    that gives biases, norms and DoRA's magnitudes the rate of B, decays norms that the Trainer does not, and trains adapted
    embeddings at 1e-6 whatever the rate is: here these have the rate of A, and the B of an embedding that of B.

    Args:
        optimizer: New, as the Trainer makes it.
        model: What it trains.
        ratio: η_B / η_A. The paper takes 16 where B begins at 0.
        where: What to call the trainer.

    Raises:
        ValueError: If no B of LoRA is trained.
    """
    second = second_factors(model, where=where)
    faster = []
    for group in optimizer.param_groups:
        chosen = [p for p in group["params"] if id(p) in second]
        if chosen:
            group["params"] = [p for p in group["params"] if id(p) not in second]
            faster.append({**group, "params": chosen, "lr": group["lr"] * ratio})
    for group in faster:
        optimizer.add_param_group(group)


def second_factors(model: nn.Module, *, where: str) -> set[int]:
    """Identities of the parameters that are a trained B of LoRA.

    Raises:
        ValueError: If there is none.
    """
    found = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and any(factor in name for factor in SECOND_FACTORS)
    }
    if not found:
        raise ValueError(
            f"{where}: loraplus_lr_ratio: is of LoRA's two factors, and no LoRA adapter is trained; leave it out"
        )
    return found
