"""Trains on any weighted sum of the pairwise objectives, chosen by its configuration."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from align.configs.pairwise import PairwiseConfig
from align.losses import Pair, PreferenceLoss
from align.losses.objectives import PairBatch, pairwise_loss
from align.losses.pairwise import wpo_weights
from align.trainers.shared.precompute import PAIRS, has_reference

from .preference import PreferenceTrainer

WPO = "wpo_weight"
RATIOS = ("log_ratio/chosen", "log_ratio/rejected")
LARGEST = 1.0
"""Weight of a pair under `use_weighting`, at most: as in the authors' code, which TRL's leaves out."""


class PairwiseTrainer(PreferenceTrainer):
    """A preference trainer whose objective is a weighted sum: IPO, IRPO, CoPG, DNO, SimPO and the others.

    What the objectives read of the data besides texts are columns of numbers (`PairwiseConfig.columns`); a set that
    lacks one is refused at construction. Each objective's share of the loss, its weight included, is logged as
    `loss/NAME`, and the mean weight of a pair as `pair_weight`. `rewards/*` are those of the first objective that has
    rewards: implicit ones against the reference, length-mean for `ipo_mean` and `sigmoid_norm`, and without reference
    for `simpo`. Where no objective reads the reference, it is never scored, nor loaded for a model that is trained whole,
    and no `log_ratio/*` is logged unless the data have its values. Under `ld_alpha` they and the logged sums
    of log-probabilities are LD-DPO's, as in TRL; `alignkit eval` ranks by whole answers.
    """

    config_class = PairwiseConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "pairwise"]
    _name = "pairwise"

    def constructed(self) -> None:
        """See that what is stored of the reference fits the loss, and look at none that nothing reads."""
        if not self.args.reads_reference():
            self.first_step = None
        if self.args.ld_alpha is not None and has_reference(self.train_dataset):
            raise ValueError(
                f"{type(self).__name__}: ld_alpha needs the reference token by token, and the data have sums of it "
                f"({', '.join(PAIRS.columns)}); remove these columns"
            )

    def loss_columns(self, inputs: dict[str, Tensor], scored: Any) -> dict[str, Tensor]:
        """The data columns, and under `use_weighting` WPO's weight of each pair, as `wpo_weight`."""
        columns = super().loss_columns(inputs, scored)
        if scored.log_sum_sq_probs is None:
            return columns
        chosen, rejected = wpo_weights(scored.token_logps, scored.log_sum_sq_probs, scored.mask).chunk(2)
        return columns | {WPO: (chosen * rejected).clamp(max=LARGEST)}

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The trainer's; not a number where no objective reads the reference."""
        if self.args.reads_reference():
            return super().compute_ref_log_probs(model, inputs)
        nothing = torch.full((len(inputs["input_ids"]) // 2,), math.nan, device=self.accelerator.device)
        return nothing, nothing

    def take_metrics(self, mode: str) -> dict[str, float]:
        """The metrics since the last call, without those of a reference that was not scored."""
        metrics = super().take_metrics(mode)
        if self.args.reads_reference():
            return metrics
        return {name: value for name, value in metrics.items() if not (name in RATIOS and math.isnan(value))}

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """The weighted sum; the column `weight` and WPO's weights multiply all of it."""
        weights: Any = None
        for name in ("weight", WPO):
            if name in columns:
                weights = columns[name] if weights is None else weights * columns[name]
        batch = PairBatch(policy, ref, tokens, columns, weights)
        return pairwise_loss(batch, self.args.objective, beta=self.args.beta, **self.args.settings())
