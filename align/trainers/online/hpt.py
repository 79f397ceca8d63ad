"""Trains GRPO in which prompts that no completion solves learn a demonstration (HPT, arXiv:2509.04419)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from trl.trainer.utils import pad

from align.configs.hpt import HPTConfig
from align.data.prompts import Chat
from align.losses.preference import sequence_logps
from align.scoring.completions import completion_ids
from align.trainers.shared.trl_contract import completion_logps, logged, tokenizer_of

from .gradients import share_of_step
from .multi_objective import DynamicGRPOTrainer


class HPTTrainer(DynamicGRPOTrainer):
    """Hybrid Post-Training (Lv et al. 2025). Construct and use it as `DynamicGRPOTrainer`.

    Where at most `gate` completions of a prompt are right, none of them is learnt from, and the row's `demonstration` (a
    text) is, by its likelihood: the loss gains `demonstration_weight` times the mean of -log π over all demonstrations'
    tokens of the generation batch, on all processes. What other prompts learn is GRPO's own, but for
    `loss_type: bnpo`, whose divisor is the tokens that are left. A prompt whose first reward is None throughout is left as
    it is.

    A demonstration is learnt from whole, however long, at the temperature that completions are sampled at, and is never
    clipped. Deviations from the authors' code: an entropy bonus is of completions alone; a step whose gradient is large is
    clipped and not left out; one demonstration a prompt, always.

    Logged besides: `demonstrations` (share of the prompts) and `loss/demonstrations` (their mean -log π per token).

    Raises:
        TypeError: If `args` is not an HPTConfig.
        ValueError: As `DynamicGRPOTrainer`, or if the training data have no texts in `demonstration`.
    """

    args: Any  # an HPTConfig; a checker takes no narrower one than the base has
    config_class = HPTConfig

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        assert self._rewards is not None
        unsolved = unsolved_prompts(self._rewards[:, self.columns.columns[0]], self.num_generations, self.args.gate)
        logged(self, "train")["demonstrations"].append(float(unsolved.float().mean()))
        count = len(inputs)
        own = torch.arange(count, device=unsolved.device) + self.accelerator.process_index * count
        given_up = unsolved[own // self.num_generations]
        output["completion_mask"] = output["completion_mask"] * ~given_up[:, None]
        shown = given_up & (own % self.num_generations == 0)
        return output | self._demonstrations(inputs, shown)

    def _demonstrations(self, inputs: Any, shown: Bool[Tensor, " rows"]) -> dict[str, Tensor]:
        """Tokens of the demonstrations of this process's rows, padded; a row that shows none has one token, for nothing."""
        tokenizer: Any = tokenizer_of(self)
        nothing = torch.tensor([tokenizer.pad_token_id])
        prompts, answers = [], []
        for row, wanted in zip(inputs, shown.tolist(), strict=True):
            ids, begin = self._ids(row) if wanted else (None, 0)
            prompts.append(nothing if ids is None else torch.tensor(ids[:begin]))
            answers.append(nothing if ids is None else torch.tensor(ids[begin:]))
        made = {}
        for name, side, parts in (("prompt", "left", prompts), ("answer", "right", answers)):
            padded = pad(parts, padding_value=tokenizer.pad_token_id, padding_side=side)
            mask = pad([torch.ones_like(part) for part in parts], padding_value=0, padding_side=side)
            made |= {f"shown_{name}_ids": padded.to(shown.device), f"shown_{name}_mask": mask.to(shown.device)}
        tokens: Any = self.accelerator.reduce((made["shown_answer_mask"] * shown[:, None]).sum())
        return made | {"shown": shown, "shown_tokens": tokens}

    def _ids(self, row: Any) -> tuple[list[int], int]:
        """Tokens of a prompt and its demonstration, and where this begins."""
        prompt, text = row["prompt"], row["demonstration"]
        if isinstance(prompt, str):
            return completion_ids(tokenizer_of(self), prompt, text)
        given: Any = self.chat_template_kwargs
        template: dict[str, Any] = dict(given)
        if self.tools:
            template["tools"] = self.tools
        return completion_ids(tokenizer_of(self), Chat(prompt, template), [{"role": "assistant", "content": text}])

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """GRPO's loss, and the part of the demonstrations' mean that this micro-batch has.

        Raises:
            ValueError: If outputs are asked for, which are never built.
        """
        loss: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not int(inputs.get("shown_tokens", 0)):  # the same on every process: all must run the same forwards
            return loss
        return loss + self.args.demonstration_weight * self._likelihood_loss(model, inputs)

    def _likelihood_loss(self, model: Any, inputs: dict[str, Tensor]) -> Float[Tensor, ""]:
        """The part of the mean of -log π over all demonstrations' tokens that this micro-batch has."""
        shown = inputs["shown"]
        rows = shown.nonzero()[:, 0] if bool(shown.any()) else torch.zeros(1, dtype=torch.long, device=shown.device)
        ids, mask = (
            torch.cat([inputs[f"shown_{n}_{what}"][rows] for n in ("prompt", "answer")], 1) for what in ("ids", "mask")
        )
        said = inputs["shown_answer_mask"][rows].bool()
        logps = sequence_logps(completion_logps(self, model, ids, mask, said.size(1)), said)
        share = -(logps * shown[rows]).sum() * self.accelerator.num_processes / inputs["shown_tokens"]
        every: Any = self.accelerator.reduce(share.detach(), "mean")
        logged(self, "train")["loss/demonstrations"].append(float(every) * self.args.steps_per_generation)
        return share * share_of_step(self)


def unsolved_prompts(right: Float[Tensor, " batch"], group_size: int, gate: int) -> Bool[Tensor, " prompts"]:
    """Whether at most `gate` of a prompt's completions have a reward of at least 1; False where none has a reward.

    Args:
        right: The reward of each completion that says whether it is right, NaN where there is none; those of a prompt are
            next to each other.
        group_size: Completions of each prompt.
        gate: Number of right completions.
    """
    grouped = right.view(-1, group_size)
    return ((grouped >= 1.0).sum(dim=1) <= gate) & ~grouped.isnan().all(dim=1)
