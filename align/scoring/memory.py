"""Predicts the memory of a backward pass, from the tensors that two forward passes keep for it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class Activations(NamedTuple):
    """Bytes kept between forward and backward, as a line in the positions of the pass."""

    fixed: float
    per_position: float

    def at(self, positions: int) -> float:
        """Bytes kept by a pass over that many positions."""
        return self.fixed + self.per_position * positions


class Saved:
    """A tensor that a graph saved for backward. It lives as long as that part of the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_bytes(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes of the tensors that `forward` leaves saved for backward, weights left out, shared storage counted once.

    Parts of the graph that `forward` lets go are not counted: their addresses may be used again.
    """
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    alive: WeakSet[Saved] = WeakSet()

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        alive.add(saved)
        return saved

    with saved_tensors_hooks(pack, lambda saved: saved.tensor):
        result = forward()
    storages = {s.data_ptr(): s.nbytes() for s in (saved.tensor.untyped_storage() for saved in alive)}
    del result
    return sum(size for address, size in storages.items() if address not in weights)


def line_through(one: tuple[int, int], other: tuple[int, int]) -> Activations:
    """The line through two measurements (positions, bytes); proportional to the larger where positions are equal."""
    (x, low), (y, high) = sorted([one, other])
    if x == y or high <= low:
        return Activations(0.0, high / max(y, 1))
    slope = (high - low) / (y - x)
    return Activations(max(low - slope * x, 0.0), slope)


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take on `device`, in bytes.

    On CPUs that is what the machine and its control group have left, shared evenly by the processes of a launch.
    """
    if device.type == "cuda":
        return (
            torch.cuda.mem_get_info(device)[0]
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    left = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        left = left if limit == "max" else min(left, int(limit) - int(used))
    except (OSError, ValueError):  # no control group, or its first version
        pass
    return left // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
