"""GRPO and RLOO whose completions share their prompt: TRL's trainers with one scoring call in another way."""

from functools import cached_property
from typing import Any

from torch import Tensor
from trl import GRPOTrainer as TRLGRPOTrainer
from trl import RLOOTrainer as TRLRLOOTrainer

from .prefix_sharing import PrefixSharing
from .trl_contract import fast_head


class _SharedGroups:
    """The training forward and the old and reference log-probabilities of a group compute its prompt once.

    Completions share a prompt within a micro-batch. TRL shuffles the completions of a generation batch before it cuts
    that into micro-batches, so the saving is whole where one micro-batch is the generation batch of the device
    (`steps_per_generation=1`), and falls with the number of micro-batches.
    """

    args: Any
    accelerator: Any

    @cached_property
    def sharing(self) -> PrefixSharing:
        """Whether rows are packed, by model."""
        return PrefixSharing(self.args.shared_prefix, max_length=None)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> Any:
        images = any(
            value is not None for name, value in kwargs.items() if name not in ("batch_size", "compute_entropy")
        )
        if not images and not compute_aux_loss:
            labels = input_ids.masked_fill(attention_mask == 0, -100)
            labels[:, :-logits_to_keep] = -100
            batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
            model = self.sharing.scorer(model, batch, self.accelerator)
        if compute_aux_loss:
            kwargs["compute_aux_loss"] = True
        with fast_head(entropy_gradient=getattr(self, "_entropy_bonus_enabled", False)):
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )


class GRPOTrainer(_SharedGroups, TRLGRPOTrainer):
    """Group Relative Policy Optimization (Shao et al. 2024, arXiv:2402.03300), as TRL's, with shared prompts."""


class RLOOTrainer(_SharedGroups, TRLRLOOTrainer):
    """REINFORCE Leave-One-Out (Ahmadian et al. 2024, arXiv:2402.14740), as TRL's, with shared prompts."""
