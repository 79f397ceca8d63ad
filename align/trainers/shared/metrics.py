"""Sums metrics over examples: the same value at any batch size, padding or number of processes."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from align.losses.preference import Pair, PreferenceLoss, log_ratios

from .scored import Scored

TOKENS = "num_tokens"
WORK = ("padding", "computed_per_token")  # of the way it was computed, not of the pairs: logged in training only
Ratio = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


def saved_state(state: TrainerState, callback: TrainerCallback) -> Any:
    """What the checkpoint that training resumes from keeps of a callback; None in a new run."""
    kept: Any = state.stateful_callbacks
    return kept.get(type(callback).__name__) if state.global_step else None


class StepMemory(TrainerCallback, ExportableState):
    """Numbers that every step moves on, kept in checkpoints under their names; the last step can be taken back."""

    kept: ClassVar[tuple[str, ...]]
    """Attributes of the class that are such numbers."""

    def begin_step(self) -> None:
        """Note the numbers, before a step moves them on."""
        self._before = self._numbers()

    def forget_step(self) -> None:
        """Take the last step back: a value that is not finite would spoil all that follow."""
        vars(self).update(self._before)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": self._numbers()}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the numbers of the checkpoint that training resumes from."""
        saved = saved_state(state, self)
        if saved:
            vars(self).update({name: saved["attributes"][name] for name in self.kept})

    def _numbers(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.kept}


def accuracy(rewards: Pair) -> Float[Tensor, " batch"]:
    """1 where the chosen answer has the larger reward, 0 where the smaller, one half for a tie. Shape (batch,)."""
    margin = rewards.chosen - rewards.rejected
    return (margin > 0).float() + 0.5 * (margin == 0).float()


class Work(NamedTuple):
    """What a forward pass computed: positions, how many of them were padding, and real tokens of each pair's rows."""

    positions: int
    padding: int
    tokens: Int[Tensor, " batch"]


def preference_metrics(policy: Pair, ref: Pair, result: PreferenceLoss, scored: Scored, work: Work) -> dict[str, Ratio]:
    """Metrics of one batch as (numerator, denominator) per pair; a metric is the ratio of their sums.

    `rewards/*` come out of the call that made the loss. `logps/*` are summed over the answer, `log_ratio/*` are
    log π - log π_ref, an estimate of the KL spent on either side; all in nats per answer. `loss` takes the place of
    the Trainer's, a mean of micro-batch means that starts anew when a run resumes inside a logging window.
    """
    ratio = log_ratios(Pair(policy.chosen.detach(), policy.rejected.detach()), ref)
    rewards = Pair(result.rewards.chosen.detach(), result.rewards.rejected.detach())
    per_pair = {
        "loss": result.losses.detach(),
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/accuracies": accuracy(rewards),
        "rewards/margins": rewards.chosen - rewards.rejected,
        "logps/chosen": policy.chosen.detach(),
        "logps/rejected": policy.rejected.detach(),
        "log_ratio/chosen": ratio.chosen,
        "log_ratio/rejected": ratio.rejected,
        **{f"loss/{name}": value.detach() for name, value in result.components.items()},
        **result.diagnostics,
    }
    sides = scored.mask.chunk(2)
    tokens = Pair(sides[0].sum(1), sides[1].sum(1))
    per_pair |= {"length/chosen": tokens.chosen, "length/rejected": tokens.rejected}
    metrics = {name: (value, torch.ones_like(policy.chosen)) for name, value in per_pair.items()}
    entropy = (scored.entropy * scored.mask).sum(1).chunk(2)
    logits = scored.mean_logits.masked_fill(~scored.mask, 0.0).sum(1).chunk(2)
    top1 = (scored.is_top1 & scored.mask).sum(1).chunk(2)
    metrics["entropy"] = (entropy[0] + entropy[1], tokens.chosen + tokens.rejected)
    metrics["logits/chosen"] = (logits[0], tokens.chosen)
    metrics["logits/rejected"] = (logits[1], tokens.rejected)
    metrics["mean_token_accuracy"] = (top1[0], tokens.chosen)
    each = torch.ones_like(policy.chosen) / len(policy.chosen)
    metrics["padding"] = (each * work.padding, each * work.positions)
    metrics["computed_per_token"] = (each * work.positions, work.tokens)
    metrics[TOKENS] = (work.tokens, torch.zeros_like(each))
    return metrics


def mean_of_known(values: Sequence[float | int]) -> float | None:
    """The mean of the values that are numbers; None if none is, as of a reward that applied to no completion."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def evaluated_as(logs: Iterable[str]) -> str:
    """How the names of an evaluation's metrics begin, by one that the Trainer has given: `eval`, or `eval_` and the set."""
    prefixes = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")]
    return prefixes[0] if prefixes else "eval"


class CountsPairs:
    """Counts the pairs of an optimizer step, so that each weighs the same. Mixed in before the Trainer.

    Losses are divided by `mean_pairs`, in place of a micro-batch's own number of pairs; the Trainer divides by the accumulation
    steps. (TRL's pairs of a smaller micro-batch, which ends an epoch, weigh more.)
    """

    accelerator: Accelerator
    mean_pairs: float | None = None
    """Pairs of a micro-batch, on average over those of the step and over processes; None before the first step."""

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The Trainer's, counting the pairs, whose answers lie below each other."""
        trainer: Any = super()
        batches, items = trainer.get_batch_samples(epoch_iterator, num_batches, device)
        own = torch.tensor([float(sum(len(batch["input_ids"]) // 2 for batch in batches))], device=device)
        counted: Any = self.accelerator.gather(own)
        self.mean_pairs = counted.mean().item() / len(batches) if batches else None
        return batches, items


class MetricSums(TrainerCallback, ExportableState):
    """Running sums of numerators and denominators, kept in checkpoints so that a resumed run logs the same values."""

    def __init__(self) -> None:
        self.train: dict[str, list[float]] = {}
        self.eval: dict[str, list[float]] = {}
        self.num_tokens = 0
        self._waiting: list[tuple[list[str], Tensor]] = []
        self._before_step: dict[str, list[float]] = {}
        self.rows_per_example = 1
        """How many rows of a batch belong to one example; they stand in so many blocks."""

    def hold(self, metrics: dict[str, Ratio]) -> None:
        """Keep one forward pass's metrics on this process until `add`."""
        columns = [column.double() for ratio in metrics.values() for column in ratio]
        self._waiting.append((list(metrics), torch.stack(columns, dim=1)))

    def add(self, mode: str, accelerator: Accelerator) -> None:
        """Gather what is held over the processes, and add it up.

        Copies that fill the last batch of an evaluation are dropped; those of an epoch's last step were trained on, and
        count. (What says which rows are copies is also set too early for training: the Trainer fetches the batches of an
        accumulation window ahead.)

        Args:
            mode: `train` or `eval`.
            accelerator: Of the trainer.
        """
        names = self._waiting[0][0]
        rows = torch.cat([columns for _, columns in self._waiting])
        self._waiting.clear()
        if mode == "eval":  # what is dropped are examples, with all their rows
            blocks = rows.unflatten(0, (self.rows_per_example, -1)).transpose(0, 1).flatten(1)
            examples: Any = accelerator.gather_for_metrics(blocks)
            gathered = examples.unflatten(1, (self.rows_per_example, -1)).flatten(0, 1)
        else:
            gathered: Any = accelerator.gather(rows.contiguous())
        totals = gathered.sum(dim=0).tolist()
        sums = self.train if mode == "train" else self.eval
        for index, name in enumerate(names):
            if name == TOKENS:
                self.num_tokens += int(totals[2 * index]) if mode == "train" else 0
            if name == TOKENS or (name in WORK and mode == "eval"):
                continue
            numerator, denominator = sums.setdefault(name, [0.0, 0.0])
            sums[name] = [numerator + totals[2 * index], denominator + totals[2 * index + 1]]

    def take(self, mode: str) -> dict[str, float]:
        """The metrics since the last call, and start anew."""
        sums = self.train if mode == "train" else self.eval
        values = {name: top / bottom for name, (top, bottom) in sums.items() if bottom}
        sums.clear()
        return values

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remember the sums, in case the step is skipped."""
        self._before_step = {name: list(pair) for name, pair in self.train.items()}

    def forget_step(self) -> None:
        """Take back what the current step added: values that are not finite would spoil the whole window."""
        self.train = self._before_step

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps. Evaluations are never half done when one is written."""
        sums = {name: list(pair) for name, pair in self.train.items()}
        return {"args": {}, "attributes": {"train": sums, "num_tokens": self.num_tokens}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the sums of the checkpoint that training resumes from."""
        saved = saved_state(state, self)
        if isinstance(saved, dict):
            self.train = {name: list(pair) for name, pair in saved["attributes"]["train"].items()}
            self.num_tokens = saved["attributes"]["num_tokens"]
