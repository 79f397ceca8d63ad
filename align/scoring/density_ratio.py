"""Estimates how much more often prompts of desirable rows are like a prompt than those of undesirable rows.

A logistic regression on embeddings of the prompts, with both classes weighing the same, has the density ratio as its odds:
p / (1 - p) = p(x | desirable) / p(x | undesirable).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

BATCH_SIZE = 32
LONGEST_TOKENS = 512  # of a prompt; the end is read, where a chat has its last question
MOST_STEPS = 100


class DensityRatio(NamedTuple):
    """A fitted classifier of embeddings."""

    weight: Float[Tensor, " width"]
    bias: Float[Tensor, ""]

    def __call__(self, embeddings: Float[Tensor, "rows width"], *, least: float, most: float) -> Float[Tensor, " rows"]:
        """The odds that a prompt is of a desirable row, held between `least` and `most`."""
        log_odds = embeddings.double() @ self.weight + self.bias
        return log_odds.clamp(max=700).exp().clamp(least, most)


def fitted(embeddings: Float[Tensor, "rows width"], desirable: Bool[Tensor, " rows"]) -> DensityRatio:
    """Fit the classifier, by Newton's method in double precision: the same rows give the same bits.

    The loss is ½ ‖weight‖² plus the sum over rows of cross-entropy, in which both labels have the same total weight and
    the rows weigh 1 on average: the default of scikit-learn's LogisticRegression with balanced classes.

    Raises:
        ValueError: If there are rows of one label alone.
    """
    good = int(desirable.sum())
    if good in (0, len(desirable)):
        raise ValueError(f"prompt_encoder: rows of both labels are needed, got {good} desirable of {len(desirable)}")
    x = torch.cat([embeddings.double(), torch.ones_like(embeddings[:, :1], dtype=torch.float64)], dim=1)
    label = desirable.double()
    each = torch.where(desirable, len(label) / (2 * good), len(label) / (2 * (len(label) - good))).double()
    ridge = torch.ones(x.size(1), dtype=torch.float64, device=x.device)
    ridge[-1] = 0.0

    def loss(theta: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(x @ theta, label, weight=each, reduction="sum")
        return entropy + (ridge * theta * theta).sum() / 2

    theta = torch.zeros_like(ridge)
    for _ in range(MOST_STEPS):
        p = torch.sigmoid(x @ theta)
        slope = x.T @ (each * (p - label)) + ridge * theta
        if slope.abs().max() < 1e-9 * len(label):
            break
        step = torch.linalg.solve((x.T * (each * p * (1 - p))) @ x + ridge.diag(), slope)
        size = 1.0
        while loss(theta - size * step) > loss(theta) and size > 1e-6:
            size /= 2
        theta = theta - size * step
    return DensityRatio(theta[:-1], theta[-1])


@torch.no_grad()
def prompt_embeddings(backbone: Any, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "prompts width"]:
    """Mean of the last hidden states over a prompt's tokens, at unit length, in float32 on the CPU.

    Args:
        backbone: A causal language model without its head.
        prompts: Token ids of each, at least one.
    """
    device = next(backbone.parameters()).device
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    rows: list[Tensor] = [torch.empty(0)] * len(prompts)
    for start in range(0, len(order), BATCH_SIZE):
        part = order[start : start + BATCH_SIZE]
        ids = [torch.tensor(prompts[i][-LONGEST_TOKENS:]) for i in part]
        batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(device)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in ids], batch_first=True).to(device)
        states = backbone(input_ids=batch, attention_mask=mask, use_cache=False).last_hidden_state.float()
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        for i, row in zip(part, F.normalize(means, dim=-1).cpu(), strict=True):
            rows[i] = row
    return torch.stack(rows)
