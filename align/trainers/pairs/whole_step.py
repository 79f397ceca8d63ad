"""Trains on pairs whose loss depends on all pairs of the optimizer step: optimal transport, and DPO with a dynamic β."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from align.configs.whole_step import AOTConfig, BetaDPOConfig
from align.losses import Pair, PreferenceLoss, implicit_rewards, log_ratios
from align.losses.whole_step import (
    aot_loss,
    aot_unpaired_loss,
    beta_dpo_loss,
    dynamic_beta,
    filter_weights,
    partners,
    partners_in,
)
from align.scoring.batching import pick_pairs
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.metrics import StepMemory
from align.trainers.shared.precompute import PAIRS, has_reference
from align.trainers.shared.reference import FirstStep
from align.trainers.shared.scored import COLUMN, answer_logps, reference_logps, score, scoring_inputs
from align.trainers.shared.trl_contract import on_device

from .preference import PreferenceTrainer


class WholeStepTrainer(PreferenceTrainer):
    """A preference trainer that looks at all pairs of an optimizer step before it learns from any.

    The look is a pass of the policy without gradient or dropout, and of the reference, whose values are then kept for the
    step. So the loss is that of the whole step, over its micro-batches and all processes; TRL's and the authors' codes
    take that of a micro-batch.
    """

    def of_step(self, policy: Pair, ref: Pair) -> dict[str, Tensor]:
        """What the loss of a pair reads of the others, by name. Overridden by each method.

        Args:
            policy: log π(y|x) of all pairs of the step and of all processes, in nats. Each side has shape (pairs,).
            ref: log π_ref(y|x), likewise.
        """
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The Trainer's, with what each pair reads of its step."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        return self.look_first([on_device(self, batch) for batch in batches]), items

    def look_first(self, batches: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The micro-batches of a step, with the reference's log-probabilities and what `of_step` finds as columns."""
        if not batches:
            return batches
        seen = [self._looked_at(batch) for batch in batches]
        own = torch.cat(seen)
        every = self.accelerator.gather(own)
        found = self.of_step(*_as_pairs(every))
        at = self.accelerator.process_index * len(own)
        made = []
        for batch, values in zip(batches, seen, strict=True):
            here = slice(at, at + len(values))
            columns = {COLUMN + name: column[here] for name, column in found.items()}
            made.append(batch | dict(zip(PAIRS.columns, values[:, 2:].unbind(dim=1), strict=True)) | columns)
            at += len(values)
        return made

    def _looked_at(self, batch: dict[str, Tensor]) -> Float[Tensor, "pairs 4"]:
        """Log-probabilities of policy and reference for both answers of each pair of a batch, in nats."""
        found = torch.empty(len(batch["input_ids"]) // 2, 4, device=self.accelerator.device)
        with torch.no_grad(), dropout_off(self.model):
            for part in self._parts(batch):
                some = pick_pairs(batch, part)
                with self.accelerator.autocast():
                    scored, _ = score(self.sharing.scorer(self.model, scoring_inputs(some), self.accelerator), some)
                policy = answer_logps(scored, None).chunk(2)
                values = torch.stack([*policy, *reference_logps(self, some)], dim=1)
                found[part.to(found.device)] = values.to(found.dtype)
        return found

    def _look_at_reference(self, first_step: FirstStep, model: nn.Module, inputs: dict[str, Any]) -> None:
        """The rule of the first step, of a reference scored anew unless the data have it."""
        stored = has_reference(self.train_dataset)
        kept = inputs if stored else {name: value for name, value in inputs.items() if name not in PAIRS.columns}
        super()._look_at_reference(first_step, model, kept)

    def loss_columns(self, inputs: dict[str, Tensor], scored: Any) -> dict[str, Tensor]:
        """What was found of the step."""
        return {name.removeprefix(COLUMN): value for name, value in inputs.items() if name.startswith(COLUMN)}


class AOTTrainer(WholeStepTrainer):
    """Alignment via Optimal Transport, paired or unpaired. See `losses.aot_loss` and `losses.aot_unpaired_loss`.

    Gaps or rewards are matched by rank within the optimizer step, and in evaluation within the whole set, which is passed
    over once more for it. The mean over the step is that of micro-batch means, so that pairs of a smaller last micro-batch
    weigh more, as in DPO.
    """

    config_class = AOTConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "aot"]
    _name = "AOT"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Distributional Preference Alignment of LLMs via Optimal Transport",
        "id": "2406.05882",
    }

    def constructed(self) -> None:
        """No set is evaluated yet."""
        self._of_set: Float[Tensor, "set 4"] | None = None

    def of_step(self, policy: Pair, ref: Pair) -> dict[str, Tensor]:
        """The partner of each pair's gap, or of its two rewards, β in them."""
        return {name: partners(*sides) for name, sides in self._matched(policy, ref).items()}

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, matched within the whole set, which is looked at first."""
        batches = (self._looked_at(on_device(self, batch)) for batch in dataloader)
        self._of_set = torch.cat([self.accelerator.gather_for_metrics(values) for values in batches])
        try:
            return super().evaluation_loop(dataloader, *args, **kwargs)
        finally:
            self._of_set = None

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """-log σ of what was matched; without a step or a set, within the batch."""
        rewards = implicit_rewards(log_ratios(policy, ref), beta=self.args.beta)
        held = Pair(policy.chosen.detach(), policy.rejected.detach())
        if not self.model.training and self._of_set is not None:
            columns = self._in_set(held, ref, self._of_set)
        found = columns or self.of_step(held, ref)
        smoothing = self.args.label_smoothing
        if self.args.matching == "paired":
            losses = aot_loss(self._gap(policy), found["partner"], label_smoothing=smoothing)
        else:
            matched = Pair(found["chosen"], found["rejected"])
            losses = aot_unpaired_loss(rewards, matched, label_smoothing=smoothing)
        return PreferenceLoss(losses, rewards, {"preference": losses}, {})

    def _gap(self, logps: Pair) -> Tensor:
        return self.args.beta * (logps.chosen - logps.rejected)

    def _in_set(self, policy: Pair, ref: Pair, values: Float[Tensor, "set 4"]) -> dict[str, Tensor]:
        """As `of_step`, for a batch of an evaluation set."""
        own, whole = self._matched(policy, ref), self._matched(*_as_pairs(values))
        return {name: partners_in(sides[0], *whole[name]) for name, sides in own.items()}

    def _matched(self, policy: Pair, ref: Pair) -> dict[str, tuple[Tensor, Tensor]]:
        """By name of the partner: the values that get one, and those it is of."""
        if self.args.matching == "paired":
            return {"partner": (self._gap(policy), self._gap(ref))}
        chosen, rejected = implicit_rewards(log_ratios(policy, ref), beta=self.args.beta)
        return {"chosen": (rejected, chosen), "rejected": (chosen, rejected)}


class MovingMargin(StepMemory):
    """M and S, moving means of the gaps' mean and standard deviation in a step, in nats. They begin at 0, as the authors' do."""

    kept = ("mean", "deviation")

    def __init__(self, decay: float) -> None:
        self.decay, self.mean, self.deviation = decay, 0.0, 0.0

    def add(self, gap: float, deviation: float) -> None:
        """Take a step's mean gap in, and the deviation of its gaps."""
        self.begin_step()
        self.mean = self.decay * self.mean + (1 - self.decay) * gap
        self.deviation = self.decay * self.deviation + (1 - self.decay) * deviation


class BetaDPOTrainer(WholeStepTrainer):
    """β-DPO: DPO whose β follows how well the step's pairs are told apart. See `losses.dynamic_beta`.

    The mean gap and its moving mean are those of the whole optimizer step, over all processes, once a step; the authors'
    code takes a micro-batch, and moves the mean in evaluation too. With `args.filter_ratio` some pairs of each step are
    left out (`losses.filter_weights`), by the same chance in a run that is resumed; the loss is the mean over the others,
    whose mean gap makes β. Rewards are logged with β₀ and over all pairs; an evaluation has the loss of β₀ and no filter.
    """

    config_class = BetaDPOConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "beta-dpo"]
    _name = "beta-DPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "β-DPO: Direct Preference Optimization with Dynamic β",
        "id": "2407.08639",
    }

    def constructed(self) -> None:
        """Keep the moving mean in checkpoints."""
        self.moving = MovingMargin(self.args.margin_decay)
        self.add_callback(self.moving)

    def of_step(self, policy: Pair, ref: Pair) -> dict[str, Tensor]:
        """β of the step, for each of its pairs, and what the pair weighs."""
        ratio = log_ratios(policy, ref)
        gaps = ratio.chosen - ratio.rejected
        self.moving.add(float(gaps.mean()), float(gaps.std()) if len(gaps) > 1 else 0.0)
        # drawn anew from seed and step, so that all processes and a resumed run draw the same
        generator = torch.Generator().manual_seed(1_000_003 * self.args.seed + self.state.global_step)
        weights = filter_weights(
            gaps, self.moving.mean, self.moving.deviation, ratio=self.args.filter_ratio, generator=generator
        )
        gap = float((weights * gaps).mean())
        beta = dynamic_beta(gap, self.moving.mean, beta=self.args.beta, margin_weight=self.args.margin_weight)
        return {"beta": torch.full_like(ratio.chosen, beta), "weight": weights}

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """-log σ(β D) at the β of the step, or without a step at β₀."""
        ratio = log_ratios(policy, ref)
        beta = columns.get("beta", torch.full_like(ratio.chosen, self.args.beta).detach())
        weights = columns.get("weight", torch.ones_like(beta))
        losses = weights * beta_dpo_loss(ratio, beta)
        found = {"beta": beta, "kept": (weights > 0).to(beta.dtype)}
        return PreferenceLoss(losses, implicit_rewards(ratio, beta=self.args.beta), {"preference": losses}, found)

    def step_was_skipped(self) -> None:
        """Neither its metrics nor its gaps count."""
        super().step_was_skipped()
        self.moving.forget_step()


def _as_pairs(values: Float[Tensor, "pairs 4"]) -> tuple[Pair, Pair]:
    """Policy and reference."""
    chosen, rejected, ref_chosen, ref_rejected = values.unbind(dim=1)
    return Pair(chosen, rejected), Pair(ref_chosen, ref_rejected)
