"""Holds a value head on the last hidden states, which is trained apart from the policy."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.losses.preference import Batch
from align.losses.token_objectives import per_row

from .scoring import Scored

VALUES = "value_head.pt"
"""The file of a checkpoint that holds the head and its optimizer."""


class Hidden(NamedTuple):
    """The part of `Scored` that a value head reads."""

    mask: Bool[Tensor, "rows time"]
    """The tokens that have a value."""
    hidden: Float[Tensor, "scored width"]
    """Last hidden states at the positions before these tokens, row by row."""


class ValueHead(TrainerCallback):
    """V_t = w · h_t + b: the reward expected of a completion once the tokens before t are read.

    h_t is the policy's last hidden state at the position before token t, adapter included, in which V has no gradient: the
    value loss moves the head alone. The head is in float32 and begins at 0, where a first step weighs by the reward. Its
    loss is the mean over the tokens of an optimizer step of (V_t - R_t)², over all micro-batches and processes; Adam takes a
    step after each of the policy's, if there was anything to learn, so the values of a step are those that earlier steps have taught. What a skipped step
    would have taught is forgotten.

    Source: Korbak et al. 2023 (arXiv:2302.08582). Deviation: there the value loss trains the whole model, with a weight
    beside the policy's; here it has a learning rate of its own, `value_learning_rate`, in the place of that weight.

    Args:
        trainer: Whose policy's hidden states are read; the head is registered with its callbacks.
    """

    def __init__(self, trainer: Any) -> None:
        width, device = trainer.model.config.get_text_config().hidden_size, trainer.accelerator.device
        self.accelerator = trainer.accelerator
        self.weight = torch.zeros(width, device=device, requires_grad=True)
        self.bias = torch.zeros((), device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=trainer.args.value_learning_rate)
        trainer.add_callback(self)

    def __call__(self, scored: Scored | Hidden) -> Float[Tensor, "rows time"]:
        """V_t of each token, 0 outside the mask, without a gradient."""
        values = torch.zeros(scored.mask.shape, device=scored.mask.device)
        values[scored.mask] = self._at(self._read(scored))
        return values

    def learn(
        self, scored: Scored | Hidden, returns: Float[Tensor, " scored"], tokens: Num[Tensor, ""], *, training: bool
    ) -> Batch:
        """Squared errors summed over each row; in training their gradient is kept for the next step of the head.

        Args:
            scored: Completions with their hidden states.
            returns: R_t of each token of the mask, row by row.
            tokens: How many tokens the optimizer step has, over all processes.
            training: Whether to learn from them.
        """
        hidden = self._read(scored)
        errors = self._at(hidden) - returns.float()
        if training:
            slopes = 2 * errors / tokens
            for parameter, gradient in (
                (self.weight, (slopes[:, None] * hidden).sum(dim=0)),
                (self.bias, slopes.sum()),
            ):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return per_row(errors.square(), scored.mask)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take a step, after the policy's, unless that was skipped."""
        for parameter in (self.weight, self.bias):
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "sum")
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Drop what was kept for the next step."""
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The head, and what its optimizer remembers."""
        return {
            "weight": self.weight.detach(), "bias": self.bias.detach(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        with torch.no_grad():
            self.weight.copy_(state["weight"])
            self.bias.copy_(state["bias"])
        asked = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, asked, strict=True):
            group["lr"] = rate  # of the settings that the run goes on with

    @torch.no_grad()
    def _at(self, hidden: Float[Tensor, "scored width"]) -> Float[Tensor, " scored"]:
        return (hidden * self.weight).sum(dim=1) + self.bias  # under autocast, a product of matrices would be rounded

    @staticmethod
    def _read(scored: Scored | Hidden) -> Float[Tensor, "scored width"]:
        assert scored.hidden is not None, "the hidden states are kept where there is a value head"
        return scored.hidden.detach().float()
