"""Holds K LoRA adapters as one of K times the rank, mixed by weights that may change at any time: ΔW(w) = s Σ w_k B_k A_k.

The rows of A are gated, a block of them for each member, so that the base, checkpoints, the reference (adapter off) and all that
knows one adapter stay as they are. Mixing the members' A and B on their own would be another matrix.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class Gated:
    """The gate of a model's adapter; even until weights are given.

    Args:
        model: With one LoRA adapter, on linear layers alone.
        members: K, which divides every rank.

    Raises:
        ValueError: If the adapter is none such.
    """

    def __init__(self, model: nn.Module, members: int) -> None:
        self.weights = torch.full((members,), 1.0 / members)
        layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
        factors = [a for layer in layers for a in layer.lora_A.values()]
        if not factors or len(factors) != len(layers) or any(len(layer.lora_embedding_A) for layer in layers):
            raise ValueError(
                "manifold: mixes one LoRA adapter's parts, on linear layers; give `lora` such target_modules"
            )
        if any(a.weight.shape[0] % members for a in factors):
            raise ValueError(f"manifold: every rank has to be a multiple of the {members} rewards")
        for a in factors:
            a.register_forward_hook(self._gated)

    def at(self, weights: Sequence[float] | Float[Tensor, " members"]) -> None:
        """Mix the members by weights, whose sum is made 1."""
        given = torch.as_tensor(weights, dtype=torch.float32)
        self.weights = given / given.sum()

    def _gated(self, module: nn.Module, inputs: Any, output: Float[Tensor, "*batch rank"]) -> Tensor:
        return output * self.weights.to(output).repeat_interleave(output.shape[-1] // len(self.weights))


def parts(factors: dict[str, tuple[Tensor, Tensor]], members: int) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """The factors (A, B) of each member of a gated adapter's: blocks of A's rows and of B's columns."""
    return [
        {module: (a.chunk(members)[member], b.chunk(members, dim=1)[member]) for module, (a, b) in factors.items()}
        for member in range(members)
    ]
