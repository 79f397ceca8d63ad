"""GRPO and RLOO whose completions share their prompt: TRL's trainers with one scoring call in another way."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer as TRLGRPOTrainer
from trl import RLOOTrainer as TRLRLOOTrainer

from align.trainers.shared.prefix_sharing import PrefixSharing
from align.trainers.shared.safe_runs import SafeRuns
from align.trainers.shared.trl_contract import (
    OrderByEpoch,
    fast_head,
    generation_state,
    last_generated,
    set_generation_state,
    set_logging_window,
)


class _Online(SafeRuns):
    """The training forward and the old and reference log-probabilities of a group compute its prompt once.

    Completions share a prompt within a micro-batch. TRL shuffles the completions of a generation batch before it cuts
    that into micro-batches, so the saving is whole where one micro-batch is the generation batch of the device
    (`steps_per_generation=1`), and falls with the number of micro-batches.

    A checkpoint holds the completions that are still to be learnt from, and a resumed run goes on with them. (TRL's
    resumed run samples new ones, from a later policy.)
    """

    @cached_property
    def sharing(self) -> PrefixSharing:
        """Whether rows are packed, by model."""
        return PrefixSharing(self.args.shared_prefix, max_length=None)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's order of prompts, also in a resumed run."""
        return OrderByEpoch.of(super()._get_train_sampler(*args, **kwargs))  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """TRL's, watched by the numerical guard."""
        loss = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self.guard.watch(last_generated(self), loss)
        return loss

    def save_state(self, folder: Path) -> None:
        """The completions of this process, its count of micro-batches, and the metrics not yet logged."""
        torch.save(generation_state(self), folder / f"generation_{self.args.process_index}.pt")

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote."""
        path = folder / f"generation_{self.args.process_index}.pt"
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        set_generation_state(self, state)
        self.add_callback(_Window(self, state["window"]))  # type: ignore[attr-defined]

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


class _Window(TrainerCallback):
    """The first record logged after a resumption counts all its steps."""

    def __init__(self, trainer: Any, window: dict[str, Any]) -> None:
        self.trainer, self.window = trainer, [window]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Once."""
        if self.window:
            set_logging_window(self.trainer, self.window.pop())


class GRPOTrainer(_Online, TRLGRPOTrainer):
    """Group Relative Policy Optimization (Shao et al. 2024, arXiv:2402.03300), as TRL's, with shared prompts."""


class RLOOTrainer(_Online, TRLRLOOTrainer):
    """REINFORCE Leave-One-Out (Ahmadian et al. 2024, arXiv:2402.14740), as TRL's, with shared prompts."""
