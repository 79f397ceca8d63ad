"""Watches where probability goes while a policy trains, by a few pairs and what the policy first said."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.models.stopping import stop_ids
from align.trainers.shared.dropout import dropout_off

SIDES = ("chosen", "rejected", "greedy")
LONGEST = 64  # tokens of a greedy answer


class _Row(NamedTuple):
    """Token ids of a prompt, its two answers, and the answer the policy gave before training."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    greedy: list[int]


class Displacement(TrainerCallback):
    """Logs how far log π of chosen, rejected and initially greedy answers has moved, in nats per answer.

    Pushing a rejected answer down gives its probability to whatever is likely already, which need not be the chosen one:
    if `displacement/greedy` rises while `displacement/chosen` falls, the policy is squeezed into what it said before.
    The first pairs of the evaluation data (of the training data, if there is none) are scored when training begins, at
    every evaluation, and when it ends. A run that resumes begins anew from where it resumes.

    Source: Ren and Sutherland 2024 (arXiv:2407.10490), learning dynamics and the squeezing effect.

    Args:
        trainer: A `PreferenceTrainer`, with its data tokenized.
        pairs: How many pairs are watched.
    """

    def __init__(self, trainer: Any, pairs: int) -> None:
        self.trainer, self.pairs = trainer, pairs
        self.rows: list[_Row] = []
        self.before: dict[str, Tensor] = {}
        self._said_at = -1

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the pairs, let the policy answer, and score all three."""
        data = self.trainer.eval_dataset
        data = next(iter(data.values())) if isinstance(data, dict) else data
        data = self.trainer.train_dataset if data is None else data
        taken = [data[index] for index in range(min(self.pairs, len(data)))]
        self.rows = [
            _Row(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"], self._greedy(row["prompt_ids"]))
            for row in taken
        ]
        self.before = self._logps()
        self._said_at = -1

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log, once a step."""
        if self.rows and state.global_step != self._said_at:
            self._said_at = state.global_step
            self.trainer.log(self.measure())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Log what came of it."""
        self.on_evaluate(args, state, control, **kw)

    def measure(self) -> dict[str, float]:
        """Mean change of log π since the beginning, in nats per answer, for each kind of answer."""
        now = self._logps()
        return {f"displacement/{side}": float((now[side] - self.before[side]).mean()) for side in SIDES}

    def _greedy(self, prompt: list[int]) -> list[int]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        tokenizer = self.trainer.processing_class
        ids = torch.tensor([prompt], device=self.trainer.accelerator.device)
        with torch.no_grad(), dropout_off(model):
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST, do_sample=False,
                temperature=None, top_p=None, top_k=None, pad_token_id=tokenizer.pad_token_id,
                eos_token_id=stop_ids(tokenizer, model),
            )  # fmt: skip
        return output[0, len(prompt) :].tolist()

    def _logps(self) -> dict[str, Tensor]:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with torch.no_grad(), dropout_off(model):
            return {
                side: torch.stack([self._logp(model, row.prompt, getattr(row, side)) for row in self.rows])
                for side in SIDES
            }

    def _logp(self, model: Any, prompt: list[int], answer: list[int]) -> Tensor:
        ids = torch.tensor([prompt + answer], device=self.trainer.accelerator.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        return logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).sum().double().cpu()
