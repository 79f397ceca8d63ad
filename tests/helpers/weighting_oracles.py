"""What the weighting tests compare with: a bandit with exact gradients, and the same problems solved another way."""

from itertools import combinations, product

import numpy as np
import torch

from align.weighting import Statistics

ARMS = torch.tensor([[1.0, 0.0], [0.75, 0.42], [0.45, 0.45], [0.42, 0.75], [0.0, 1.0], [0.1, 0.1]], dtype=torch.float64)
ASYMMETRIC = torch.tensor([2.0, 0.0, 0.0, 0.0, -1.0, 1.0], dtype=torch.float64)
"""Logits whose expected rewards are (0.689, 0.168)."""


def climb(rule, steps, *, later=0.2, logits=ASYMMETRIC, scale=(1.0, 1.0), advantages=False, divide=False):
    """Follows a rule on a softmax bandit: final expected rewards without `scale`, largest fall in one step with it.

    The learning rate is 0.2 for 200 steps, in which rules fall most, then `later`. `advantages` takes the Gram matrix of the advantages, `divide` divides each column by its standard deviation.
    """
    logits, rewards, before, fall = logits.clone(), ARMS * torch.tensor(scale, dtype=torch.float64), None, 0.0
    for step in range(steps):
        pi = logits.softmax(0)
        means = pi @ rewards
        fall = fall if before is None else max(fall, float((before - means).max()))
        before = means
        columns = rewards - means
        if divide:
            columns = columns / (pi @ columns**2).sqrt()
        gradients = pi * columns.T
        gram = columns.T @ (pi[:, None] * columns) if advantages else gradients @ gradients.T
        answer = rule.update(Statistics(means, step, gram))
        combined = answer.scale * rule.combine(columns, answer.weights)
        logits = logits + (0.2 if step < 200 else later) * pi * (combined - pi @ combined)
    return (logits.softmax(0) @ rewards / torch.tensor(scale, dtype=torch.float64)).tolist(), fall, answer


def projected(gradients, vector, tolerance=1e-9):
    """The point nearest to `vector` among {x: J x ≥ 0}: all faces of the cone are tried, in the space of x."""
    best = np.zeros_like(vector)
    for size in range(len(gradients) + 1):
        for face in combinations(range(len(gradients)), size):
            rows = gradients[list(face)]
            point = vector - np.linalg.pinv(rows, rcond=1e-10) @ (rows @ vector) if size else vector
            inside = (gradients @ point >= -tolerance * np.linalg.norm(gradients, axis=1)).all()
            if inside and np.linalg.norm(vector - point) < np.linalg.norm(vector - best):
                best = point
    return best


def lattice(objectives, parts):
    """All weights on the simplex with the denominator `parts`."""
    rows = [row for row in product(range(parts + 1), repeat=objectives) if sum(row) == parts]
    return np.array(rows) / parts


def inclusion_exclusion(points, reference):
    """The volume of a union of boxes, from all their intersections."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in combinations(points, size):
            total += (-1) ** (size + 1) * np.prod(np.maximum(np.min(some, axis=0) - reference, 0))
    return total
