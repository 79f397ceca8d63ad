"""Trains token-level DPO: DPO with the KL of every token of both answers, over the whole vocabulary."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.configs.preference import TDPOConfig
from align.losses import Pair, PreferenceLoss, log_ratios, tdpo_loss
from align.losses.token_objectives import per_row
from align.losses.tokens import ref_kl
from align.trainers.shared.precompute import has_reference
from align.trainers.shared.scored import Scored, backbone_of, frozen_head, last_hidden

from .preference import PreferenceTrainer


class TDPOTrainer(PreferenceTrainer):
    """Token-level DPO. See `losses.tdpo_loss`; `kl_weight=1.0, hold_chosen_kl=False` is TDPO1.

    The KL is computed from the last hidden states of both models through the output head they share, some positions at a
    time (`losses.tokens.ref_kl`): logits over the vocabulary never exist for a whole batch, and none are kept for
    backward. Prompts are shared as in DPO. `rewards/*` have the KL in them; `alignkit eval` ranks by log-ratios alone.

    Raises:
        ValueError: As `PreferenceTrainer`; or if the head is trained, scaled or not the reference's, or the data have the
            reference's log-probabilities, which are not enough.
    """

    config_class = TDPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "tdpo"]
    _name = "TDPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Token-level Direct Preference Optimization",
        "id": "2404.11999",
    }

    def constructed(self) -> None:
        """Find the output head, and see that both models have it."""
        where = type(self).__name__
        if has_reference(self.train_dataset):
            raise ValueError(
                f"{where}: the data have the reference's sums, and its distribution at every token is needed; take them out"
            )
        self.head = frozen_head(self.model, where, "the KL of tokens")
        if self.ref_model is not None:
            other = self.accelerator.unwrap_model(self.ref_model).get_output_embeddings().weight
            if other.shape != self.head.shape or not torch.equal(other.to(self.head), self.head):
                raise ValueError(f"{where}: the reference has another output head; take a reference of the same base")
        self._policy_states: list[Tensor] | None = None
        self._states: tuple[Tensor, Tensor] | None = None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """As `PreferenceTrainer`, with the hidden states of both models at hand for the loss."""
        try:
            with last_hidden(backbone_of(self.model)) as self._policy_states:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._policy_states = self._states = None

    def compute_ref_log_probs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """As `PreferenceTrainer`; the policy has scored the batch just before."""
        policy = None if self._policy_states is None else self._policy_states[-1]
        own = self.model if self.ref_model is None else self.accelerator.unwrap_model(self.ref_model)
        with last_hidden(backbone_of(own)) as seen:
            found = super().compute_ref_log_probs(model, inputs)
        self._states = None if policy is None else (policy, seen[-1])
        return found

    def loss_columns(self, inputs: dict[str, Tensor], scored: Scored) -> dict[str, Tensor]:
        """Sums of KL(π_ref ‖ π) over each answer's tokens, in nats, by side."""
        if self._states is None:
            raise ValueError(f"{type(self).__name__}: the loss belongs to `compute_loss`, which scores both models")
        models = self.model, self.model if self.ref_model is None else self.ref_model
        policy, ref = (
            self.sharing.at_answers(states, scored.mask, packed=self.sharing.packs(each, self.accelerator))
            for states, each in zip(self._states, models, strict=True)
        )
        each: Float[Tensor, " scored"] = ref_kl(policy, ref.detach().to(policy.dtype), self.head)
        chosen, rejected = per_row(each, scored.mask).chunk(2)
        return {"chosen_kl": chosen, "rejected_kl": rejected}

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """-log σ of the margin with the KL of both answers in it."""
        return tdpo_loss(
            log_ratios(policy, ref),
            Pair(columns["chosen_kl"], columns["rejected_kl"]),
            beta=self.args.beta,
            kl_weight=self.args.kl_weight,
            hold_chosen=self.args.hold_chosen_kl,
        )
