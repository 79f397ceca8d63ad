"""Names the objectives on single completions that a recipe can weigh; the formulas are in `tokens.py`.

What the sum of an objective's values is divided by is declared here: the tokens of an optimizer step for losses that are
sums over tokens, its completions for losses that judge a completion as a whole. Neither depends on how a step is cut into
micro-batches.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from . import tokens
from .preference import Batch, sequence_logps
from .tokens import CompletionMask, TokenLogps

Unit = Literal["token", "sequence"]


class CompletionBatch(NamedTuple):
    """All that an objective can depend on. Each column has shape (batch,).

    `token_logps` and `mask` are as in `tokens.py`; `values` are None unless an active objective has `values`. The reference's `ref_token_logps` are None unless an active objective
    has `reference`; the hidden states of `ref_kl` and the weight of the output head are None unless it is active.
    """

    token_logps: TokenLogps
    mask: CompletionMask
    columns: Mapping[str, Batch]
    ref_token_logps: Any = None
    hidden: Any = None
    ref_hidden: Any = None
    head: Any = None
    values: Any = None

    @property
    def units(self) -> dict[Unit, Batch]:
        """How many tokens each row has, and how many completions, which is one."""
        count = self.mask.sum(dim=1).to(self.token_logps.dtype)
        return {"token": count, "sequence": torch.ones_like(count)}

    @property
    def logps(self) -> Batch:
        """Log π of each completion, summed, in nats."""
        return sequence_logps(self.token_logps, self.mask)

    @property
    def ref_logps(self) -> Batch:
        """Log π_ref of each completion, likewise."""
        return sequence_logps(self.ref_token_logps, self.mask)


class Measure(NamedTuple):
    """What is logged beside a loss: `value(batch, loss, **settings)` per row, and the unit that its sum is divided by."""

    value: Callable[..., Batch]
    per: Unit = "sequence"


class Objective(NamedTuple):
    """One entry of `OBJECTIVES`.

    `loss(batch, **settings)` is one value per row; their sum is divided by the number of `per`. `reads` names the
    settings, fields of `SupervisedConfig` that no other objective has; `columns` the data columns, one finite number per
    row. `values` says that it reads V_t of a value head. `measures` are logged by their names.
    """

    per: Unit
    loss: Callable[..., Batch]
    reads: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    reference: bool = False
    values: bool = False
    measures: Mapping[str, Measure] = {}


def per_row(values: Float[Tensor, " scored"], mask: CompletionMask) -> Batch:
    """Sum values of the mask's positions, listed row by row, over each row."""
    return values.new_zeros(len(mask)).index_add(0, mask.nonzero()[:, 0], values)


def _inside(values: TokenLogps, mask: CompletionMask) -> Batch:
    return values.masked_fill(~mask, 0.0).sum(dim=1)


def _unwanted(b: CompletionBatch, threshold: float) -> Tensor:
    return b.columns["reward"] < threshold


OBJECTIVES: dict[str, Objective] = {
    "nll": Objective("token", lambda b: tokens.nll(b.token_logps, b.mask)),
    "dft": Objective("token", lambda b: tokens.dft(b.token_logps, b.mask)),
    "unlikelihood": Objective(
        "token",
        lambda b, unlikelihood_alpha, unlikelihood_threshold: tokens.unlikelihood(
            b.token_logps, b.mask, _unwanted(b, unlikelihood_threshold), alpha=unlikelihood_alpha
        ),
        ("unlikelihood_alpha", "unlikelihood_threshold"),
        ("reward",),
        measures={
            "unlikelihood/unwanted": Measure(
                lambda b, loss, unlikelihood_alpha, unlikelihood_threshold: _unwanted(b, unlikelihood_threshold).float()
            )
        },
    ),
    "rwr": Objective(
        "token",
        lambda b, rwr_beta, rwr_max_weight: tokens.rwr(
            b.token_logps, b.mask, b.columns["reward"], beta=rwr_beta, max_weight=rwr_max_weight
        ),
        ("rwr_beta", "rwr_max_weight"),
        ("reward",),
        measures={
            "rwr/weight": Measure(
                lambda b, loss, rwr_beta, rwr_max_weight: tokens.rwr_weight(
                    b.columns["reward"], beta=rwr_beta, max_weight=rwr_max_weight
                )
            )
        },
    ),
    "awr": Objective(
        "token",
        lambda b, awr_beta, awr_max_weight: tokens.awr(
            b.token_logps, b.mask, b.columns["reward"], b.values, beta=awr_beta, max_weight=awr_max_weight
        ),
        ("awr_beta", "awr_max_weight"),
        ("reward",),
        values=True,
        measures={
            "awr/weight": Measure(
                lambda b, loss, awr_beta, awr_max_weight: _inside(
                    tokens.rwr_weight(
                        b.columns["reward"][:, None] - b.values, beta=awr_beta, max_weight=awr_max_weight
                    ),
                    b.mask,
                ),
                per="token",
            ),
            "awr/value": Measure(lambda b, loss, awr_beta, awr_max_weight: _inside(b.values, b.mask), per="token"),
        },
    ),
    "poft": Objective(
        "sequence",
        lambda b: tokens.poft(b.token_logps, b.mask, b.columns["aligned_logp"]),
        columns=("aligned_logp",),
        measures={
            "poft/weight": Measure(
                lambda b, loss: torch.sigmoid(b.columns["aligned_logp"] - tokens.mean_logps(b.token_logps, b.mask))
            )
        },
    ),
    "fsft": Objective(
        "sequence",
        lambda b, fsft_beta, fsft_divergence: tokens.fsft(
            b.logps, b.ref_logps, torch.zeros_like(b.ref_logps), beta=fsft_beta, divergence=fsft_divergence
        ),
        ("fsft_beta", "fsft_divergence"),
        reference=True,
        measures={"log_ratio": Measure(lambda b, loss, fsft_beta, fsft_divergence: b.logps - b.ref_logps)},
    ),
    "ref_kl": Objective(
        "token",
        lambda b: per_row(tokens.ref_kl(b.hidden, b.ref_hidden, b.head), b.mask),
        reference=True,
        measures={"ref_kl": Measure(lambda b, loss: loss, per="token")},
    ),
}
"""By the name that a recipe's `objective` gives it. Sums such as {dft: 1.0, ref_kl: 0.05}, which is ASFT, need no entry."""


def token_losses(
    batch: CompletionBatch, names: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Batch], dict[str, tuple[Batch, Batch]]]:
    """The value of every objective named, unweighted, and what is measured of them as numerator and denominator."""
    units, losses, seen = batch.units, {}, {}
    for name in names:
        entry = OBJECTIVES[name]
        read = {key: settings[key] for key in entry.reads}
        losses[name] = entry.loss(batch, **read)
        for key, measure in entry.measures.items():
            seen[key] = measure.value(batch, losses[name], **read), units[measure.per]
    return losses, seen
