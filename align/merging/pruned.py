"""Merges adapters by TIES and DARE, by PEFT's own functions on ΔW; and cuts what a product of factors cannot hold.

Both drop entries of ΔW, after which it has full rank, so the adapter that is written is the nearest one of a stated rank. PEFT's
`add_weighted_adapter` calls this `ties_svd`, `dare_linear_svd` and `dare_ties_svd`; its `ties` and `dare_linear` prune A and B on
their own, which is another model.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft.utils.merge_utils import dare_linear, dare_ties, ties
from torch import Tensor
from torch.random import fork_rng

from align.errors import RunError

from .adapters import Adapter, Factors, changes_of

KINDS: dict[str, Callable[[list[Tensor], Tensor, float], Tensor]] = {
    "ties": ties,
    "dare": dare_linear,
    "dare-ties": dare_ties,
}


def pruned(
    adapters: Sequence[Adapter],
    kind: str,
    weights: Sequence[float],
    *,
    density: float,
    rank: int | None = None,
    seed: int = 0,
) -> tuple[Factors, dict[str, Any]]:
    """Factors (A, B) of the merge of several ΔW by a rule that drops entries.

    `ties` keeps the largest entries, drops those whose sign is not that of the sum, and takes w_k ΔW_k's mean over who is left.
    `dare` keeps entries at random, divides them by `density`, and sums w_k ΔW_k. `dare-ties` keeps at random and goes on as `ties`.
    As PEFT has it, the sign is chosen before weights count, and the mean is divided by the number of members and not by their
    weights: weights of 1 give the mean, those of sum 1 a fraction of it.

    Source: Yadav et al. 2023, "TIES-merging" (arXiv:2306.01708), section 3; Yu et al. 2024, "Language models are super Mario"
    (arXiv:2311.03099), section 3.2.

    Args:
        adapters: Of one base.
        kind: One of `KINDS`.
        weights: One for each adapter.
        density: The share of entries of each ΔW that is kept, in (0, 1].
        rank: Of what is written; by default the largest of a module's factors, as in PEFT.
        seed: Of the entries that DARE keeps.

    Returns:
        The factors, and what `low_rank` says of them.

    Raises:
        RunError: If density or rank is out of its range, or the weights are not one finite number for each adapter.
    """
    if not 0 < density <= 1:
        raise RunError(f"--density: must be above 0 and at most 1, got {density}")
    if len(weights) != len(adapters) or not all(map(math.isfinite, weights)):
        raise RunError(f"--{kind}: one finite weight for each of {len(adapters)} adapters, got {list(weights)}")
    changes = {}
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in adapters[0].factors:
            members = changes_of(adapters, module)
            changes[module] = KINDS[kind](members, torch.tensor(weights), density)
    factors, lost = low_rank(changes, adapters, rank)
    return factors, {kind: list(weights), "density": density, "seed": seed} | lost


def low_rank(
    changes: dict[str, Float[Tensor, "outputs inputs"]], adapters: Sequence[Adapter], rank: int | None
) -> tuple[Factors, dict[str, Any]]:
    """The nearest factors (A, B) of a rank to each ΔW, by its singular values.

    Args:
        changes: ΔW by module.
        adapters: What was merged: without `rank`, each module has the largest rank that it has there.
        rank: Of every module, or less where a module has fewer rows or columns.

    Returns:
        The factors; and `lost`, by module the norm of what was cut over that of ΔW, of which `largest_lost` is the greatest.

    Raises:
        RunError: If the rank is below 1.
    """
    if rank is not None and rank < 1:
        raise RunError(f"--rank: must be at least 1, got {rank}")
    factors, lost = {}, {}
    for module, change in changes.items():
        most = rank or max(len(adapter.factors[module][0]) for adapter in adapters)
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        factors[module] = (right[:most], left[:, :most] * values[:most])
        whole = float(values.norm())
        lost[module] = float(values[most:].norm()) / whole if whole > 0 else 0.0
    return factors, {"largest_lost": max(lost.values()), "lost": lost}
