"""Holds what trainers share that sample single answers, as GRPO does, and learn from them by a loss of their own."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from align.trainers.shared.scored import whole
from align.trainers.shared.trl_contract import completion_logps

from .shared_prompts import GRPOTrainer


class SingleAnswers(GRPOTrainer):
    """GRPO's sampling and rewards, and another loss of the tokens' log-probabilities."""

    @property
    def group_size(self) -> int:
        """Completions of each prompt in this mode."""
        size: Any = self.num_generations if self.model.training else self.num_generations_eval
        return size

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The part of the step's loss that this micro-batch has.

        Raises:
            ValueError: If outputs are asked for, which are never built.
        """
        if return_outputs:
            raise ValueError(f"{type(self).__name__}: outputs are never built; ask for the loss alone")
        ids, mask = whole(inputs)
        return self.own_loss(completion_logps(self, model, ids, mask, inputs["completion_ids"].size(1)), inputs)

    def own_loss(self, logps: Float[Tensor, "rows time"], inputs: dict[str, Tensor]) -> Float[Tensor, ""]:
        """The loss of a micro-batch. Micro-batches and processes add up, divided by the number of processes.

        Args:
            logps: Log-probabilities of the completions' tokens, in nats; anything where `completion_mask` is 0.
            inputs: The micro-batch.
        """
        raise NotImplementedError
