"""Names the objectives that a recipe can weigh and sum; the formulas are in the files that it imports."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from . import anchored, balance, pairwise, reference_free
from .pairwise import per_token
from .preference import Batch, Pair, PreferenceLoss, dpo_loss, implicit_rewards, log_ratios

COLUMNS = {
    "chosen_reward": (-math.inf, math.inf),
    "rejected_reward": (-math.inf, math.inf),
    "margin": (-math.inf, math.inf),
    "preference": (0.0, 1.0),
    "weight": (0.0, math.inf),
}
"""Data columns that objectives read, one number for each pair, and their range.

`chosen_reward` and `rejected_reward` are scores of the two answers, `margin` is how much better the chosen one is,
`preference` the probability that it is preferred, and `weight` what the pair's loss is multiplied with.
"""


class PairBatch(NamedTuple):
    """All that an objective can depend on. Each side of a `Pair`, each column and `weights` have shape (batch,).

    `policy` is log π(y|x) in nats, summed over the answer, and carries the gradient; `ref` is log π_ref(y|x), likewise;
    `tokens` counts each answer's tokens. `weights` multiply every objective's loss.
    """

    policy: Pair
    ref: Pair
    tokens: Pair
    columns: Mapping[str, Batch]
    weights: Batch | None = None

    @property
    def log_ratio(self) -> Pair:
        """Of each answer, from `log_ratios`."""
        return log_ratios(self.policy, self.ref)

    @property
    def scores(self) -> Pair:
        """The columns `chosen_reward` and `rejected_reward`."""
        return Pair(self.columns["chosen_reward"], self.columns["rejected_reward"])


class Objective(NamedTuple):
    """One entry of `OBJECTIVES`.

    `rewards(batch, beta)` are the rewards in nats that `loss(rewards, batch, **settings)` is a function of, and that
    are logged; None for a loss that compares nothing. `reads` names the settings, `columns` the data columns. `reference`
    says whether loss or rewards depend on the reference.
    """

    rewards: Callable[[PairBatch, float], Pair] | None
    loss: Callable[..., Batch]
    reads: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    reference: bool = True

    @property
    def of_sums(self) -> bool:
        """Whether the loss is a function of the answers' summed log-ratios, and of nothing else of a model."""
        return self.rewards is _summed


def _summed(batch: PairBatch, beta: float) -> Pair:
    return implicit_rewards(batch.log_ratio, beta=beta)


def _mean(batch: PairBatch, beta: float) -> Pair:
    return implicit_rewards(per_token(batch.log_ratio, batch.tokens), beta=beta)


def _mean_without_reference(batch: PairBatch, beta: float) -> Pair:
    return implicit_rewards(per_token(batch.policy, batch.tokens), beta=beta)


def _summed_without_reference(batch: PairBatch, beta: float) -> Pair:
    return implicit_rewards(batch.policy, beta=beta)


SCORES = ("chosen_reward", "rejected_reward")
OBJECTIVES: dict[str, Objective] = {
    "sigmoid": Objective(
        _summed, lambda r, b, label_smoothing: dpo_loss(r, label_smoothing=label_smoothing), ("label_smoothing",)
    ),
    "sigmoid_norm": Objective(_mean, lambda r, b: dpo_loss(r)),
    "robust": Objective(
        _summed,
        lambda r, b, label_smoothing: pairwise.robust_dpo_loss(r, label_smoothing=label_smoothing),
        ("label_smoothing",),
    ),
    "soft_sigmoid": Objective(
        _summed, lambda r, b: pairwise.soft_dpo_loss(r, b.columns["preference"]), (), ("preference",)
    ),
    "dno": Objective(_summed, lambda r, b: pairwise.dno_loss(r, b.scores), (), SCORES),
    "reverse_po": Objective(
        _summed,
        lambda r, b, beta, margin_scale: pairwise.margin_dpo_loss(
            r, b.columns["margin"], beta=beta, gamma=margin_scale
        ),
        ("beta", "margin_scale"),
        ("margin",),
    ),
    "reward_aware_rpo": Objective(
        _summed,
        lambda r, b, reward_scale: pairwise.reward_aware_rpo_loss(r, b.scores, eta=reward_scale),
        ("reward_scale",),
        SCORES,
    ),
    "ipo": Objective(_summed, lambda r, b, beta: pairwise.ipo_loss(b.log_ratio, beta=beta), ("beta",)),
    "ipo_mean": Objective(
        _mean, lambda r, b, beta: pairwise.ipo_mean_loss(b.log_ratio, b.tokens, beta=beta), ("beta",)
    ),
    "copg": Objective(_summed, lambda r, b: pairwise.copg_loss(r, b.scores), (), SCORES),
    "trajectory_balance": Objective(
        _summed,
        lambda r, b: balance.trajectory_balance_loss(torch.stack(r, dim=1), torch.stack(b.scores, dim=1)),
        (),
        SCORES,
    ),
    "discopop": Objective(
        _summed, lambda r, b, discopop_tau: pairwise.discopop_loss(r, tau=discopop_tau), ("discopop_tau",)
    ),
    "simpo": Objective(
        _mean_without_reference,
        lambda r, b, simpo_gamma: reference_free.simpo_loss(r, gamma=simpo_gamma),
        ("simpo_gamma",),
        reference=False,
    ),
    "hinge": Objective(_summed, lambda r, b: pairwise.hinge_loss(r)),
    "exo_pair": Objective(
        _summed,
        lambda r, b, label_smoothing: pairwise.exo_pair_loss(r, label_smoothing=label_smoothing),
        ("label_smoothing",),
    ),
    "nca_pair": Objective(_summed, lambda r, b: anchored.nca_pair_loss(r)),
    "bco_pair": Objective(_summed, lambda r, b: anchored.bco_pair_loss(r)),
    "sppo_hard": Objective(_summed, lambda r, b, beta: anchored.sppo_hard_loss(b.log_ratio, beta=beta), ("beta",)),
    "apo_zero": Objective(_summed, lambda r, b: anchored.apo_zero_loss(r)),
    "apo_down": Objective(_summed, lambda r, b: anchored.apo_down_loss(r)),
    "cal_dpo": Objective(_summed, lambda r, b, beta: anchored.cal_dpo_loss(b.log_ratio, beta=beta), ("beta",)),
    "modpo": Objective(
        _summed,
        lambda r, b, modpo_weight: pairwise.modpo_loss(r, b.columns["margin"], weight=modpo_weight),
        ("modpo_weight",),
        ("margin",),
    ),
    "odds_ratio": Objective(
        _mean_without_reference,
        lambda r, b, beta: reference_free.odds_ratio_loss(per_token(b.policy, b.tokens), beta=beta),
        ("beta",),
        reference=False,
    ),
    "cpo": Objective(
        _summed_without_reference,
        lambda r, b, label_smoothing: dpo_loss(r, label_smoothing=label_smoothing),
        ("label_smoothing",),
        reference=False,
    ),
    "slic": Objective(_summed_without_reference, lambda r, b: pairwise.hinge_loss(r), reference=False),
    "nll": Objective(None, lambda r, b: pairwise.nll_loss(b.policy.chosen, b.tokens.chosen), reference=False),
}
"""By the name that a recipe's `objective` gives it. Sums such as {sigmoid: 1.0, nll: 1.0}, which is IRPO, need no entry."""


def pairwise_loss(
    batch: PairBatch, objective: Mapping[str, float], *, beta: float, **settings: float
) -> PreferenceLoss:
    """The weighted sum of objectives.

    Args:
        batch: What the objectives depend on.
        objective: Names from `OBJECTIVES` and their weights.
        beta: Strength of the pull towards the reference (SimPO's scale of log-probabilities).
        settings: By the names that the objectives read; others are not looked at.

    Returns:
        `components` are the addends, weights included. `rewards` are those of the first objective that has any, and else implicit ones.
    """
    components: dict[str, Batch] = {}
    logged: list[Pair] = []
    given = {"beta": beta, **settings}
    for name, weight in objective.items():
        entry = OBJECTIVES[name]
        rewards = None if entry.rewards is None else entry.rewards(batch, beta)
        logged += [] if rewards is None else [rewards]
        losses = weight * entry.loss(rewards, batch, **{key: given[key] for key in entry.reads})
        components[name] = losses if batch.weights is None else batch.weights * losses
    first, *rest = components.values()
    total = sum(rest, start=first)
    diagnostics = {} if batch.weights is None else {"pair_weight": batch.weights}
    rewards = logged[0] if logged else _summed(batch, beta)
    return PreferenceLoss(total, rewards, components, diagnostics)
