"""Solves for weights from the Gram matrix J Jᵀ of K gradients (the rows of J): small convex problems, exactly.

Everything runs in float64 on the CPU, for any K, and does not depend on the common scale of the gradients. An
objective whose squared gradient norm is at most 1e-12 of the largest is dead: what float32 leaves of a constant reward
after centring is rounding noise of about that size.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

Gram = Float[Tensor, "objectives objectives"]
Weights = Float[Tensor, " objectives"]
NORMALISATIONS = ("none", "clip", "unit")

DEAD = 1e-12
"""Squared gradient norm of a dead objective, relative to the largest."""

CLONES = 1e-9
"""Ridge of `mgda_weights`, relative to the largest squared norm: makes the solution unique, so that clones share."""

TOLERANCE = 1e-12
"""Largest slope at a solution, for problems of scale 1."""


def alive(gram: Gram) -> Bool[Tensor, " objectives"]:
    """Which objectives have a gradient worth the name."""
    squares = gram.diagonal()
    return squares > DEAD * squares.max()


def mgda_weights(gram: Gram) -> Weights:
    """The weights of the shortest vector in the convex hull of the gradients: argmin wᵀ G w over the simplex.

    Its direction improves every objective, or is 0 at a Pareto stationary point (Désidéri 2012; Sener and Koltun 2018,
    arXiv:1810.04650). Deviation: dead objectives get weight 0; taken at its word, the problem would put all weight on
    one of them and stop learning. If all are dead, the weights are equal.

    The constraint Σ w = 1 is traded for a penalty, argmin sᵀ G s + (Σ s - 1)² over s ≥ 0: the length of s costs the
    less the shorter its direction can be made, so the direction is the same.
    """
    gram = gram.detach().double().cpu()
    live = alive(gram)
    if not live.any():
        return torch.full((len(gram),), 1 / len(gram), dtype=torch.float64)
    inner = gram[live][:, live] / gram.diagonal().max()
    ones = torch.ones(len(inner), dtype=torch.float64)
    solution = _nonnegative(inner + torch.outer(ones, ones) + CLONES * torch.diag(ones), -ones)
    weights = torch.zeros(len(gram), dtype=torch.float64)
    weights[live] = solution / solution.sum()
    return weights


def upgrad_weights(gram: Gram, preference: Weights, ridge: float = 1e-10) -> Weights:
    """The weights of Σ_i p_i Proj(g_i), each gradient projected onto the cone {x: J x ≥ 0} that hurts no objective.

    Each projection's weights solve the dual problem argmin vᵀ G v over v ≥ e_i, and the result is Σ_i p_i v_i, so
    w_k ≥ p_k (Quinton and Rey 2024, arXiv:2406.16232). They do not sum to 1. Solved on the cosines of the gradients,
    where the problem has no scale. A dead objective keeps its preference and constrains nothing.

    Args:
        gram: J Jᵀ.
        preference: p ≥ 0; 1/K in the paper.
        ridge: Added to the diagonal of the cosines, positive. Gradients that are opposite but for rounding leave a
            cone so thin that the exact weights exceed 1e5; a ridge r bounds the steps beyond p by some 1/(2√r).
    """
    gram = gram.detach().double().cpu()
    weights = preference.detach().double().cpu().clone()
    live = alive(gram)
    norms = gram.diagonal()[live].sqrt()
    cosines = gram[live][:, live] / norms[:, None] / norms
    cosines.diagonal().add_(ridge)
    rows = [_nonnegative(cosines, linear) for linear in cosines]
    if rows:
        projections = torch.stack(rows) + torch.eye(len(rows), dtype=torch.float64)
        weights[live] = (weights[live] * norms) @ projections / norms
    return weights


def normalised(gram: Gram, lengths: Weights) -> Gram:
    """The Gram matrix after each gradient is divided by its entry of `lengths`."""
    return gram / lengths[:, None] / lengths


def divisors(gram: Gram, how: str) -> Weights:
    """What each gradient is divided by: 1 ("none"), its norm where that exceeds 1 ("clip"), its norm ("unit").

    A gradient of 0 is divided by 1.
    """
    norms = gram.diagonal().clamp_min(0.0).sqrt()
    if how == "none":
        return torch.ones_like(norms)
    return norms.clamp_min(1.0) if how == "clip" else torch.where(norms > 0, norms, 1.0)


def _nonnegative(matrix: Float[Tensor, "live live"], linear: Float[Tensor, " live"]) -> Float[Tensor, " live"]:
    """Minimises sᵀ M s + 2 cᵀ s over s ≥ 0, for a positive definite M, by the active sets of Lawson and Hanson (1974).

    Preferred to projected Gauss-Seidel, which on nearly dependent gradients was still 4e-5 from the solution after
    20 000 sweeps; here a handful of small linear systems suffices.
    """
    m, c = matrix.numpy(), linear.numpy()
    solution, free = np.zeros(len(c)), np.zeros(len(c), dtype=bool)
    for _ in range(50 * len(c)):
        descent = np.where(free, 0.0, -(c + m @ solution))
        if descent.max() <= TOLERANCE:
            break
        free[descent.argmax()] = True
        while free.any():
            rows = np.flatnonzero(free)
            target = np.linalg.solve(m[np.ix_(rows, rows)], -c[rows])
            if (target > 0).all():
                solution[rows] = target
                break
            here, falling = solution[rows], target <= 0
            steps = np.full(len(rows), np.inf)
            steps[falling] = here[falling] / np.maximum(here[falling] - target[falling], 1e-300)
            solution[rows] = here + steps.min() * (target - here)
            free[rows[steps.argmin()]] = False
            solution = np.where(free, np.maximum(solution, 0.0), 0.0)
    return torch.from_numpy(solution)
