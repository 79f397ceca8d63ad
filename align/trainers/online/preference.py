"""Trains on pairs that the policy samples in each step and a judge compares: online DPO and IPO, EGPO, Nash-MD, XPO."""

import contextlib
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from jaxtyping import Bool, Float
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from trl import GRPOConfig as TRLGRPOConfig
from trl.trainer.grpo_trainer import RewardFunc
from trl.trainer.utils import split_tensor_dict

from align.configs.common import defaults_of
from align.configs.online_preference import OnlinePreferenceConfig
from align.errors import RunError
from align.judges.scorers import Scorer
from align.losses import Pair, PairBatch, PreferenceLoss, sequence_logps
from align.losses.online import labels, online_pair_loss
from align.trainers.shared.base import own_args
from align.trainers.shared.columns import image_columns
from align.trainers.shared.metrics import accuracy
from align.trainers.shared.scored import ROWS, whole
from align.trainers.shared.trl_contract import completion_logps, logged, metrics_aside

from .extragradient import half_step
from .prompt_weights import PromptWeights
from .rewards import SILENT, raise_problems
from .second_answers import mixture_answers, reference_answers
from .shared_prompts import GRPOTrainer
from .verdicts import Verdicts, Wins, of_judge, of_rewards

OF_REWARDS = ("preferred_by", "reward_temperature", "reward_weights")


class OnlinePreferenceTrainer(GRPOTrainer):
    """Learns from pairs of its own: two answers to each prompt, sampled by `GRPOTrainer`, compared, and learnt from.

    The loss is any pairwise objective, in expectation over the label (`align.losses.online`). It is a mean over the pairs
    of a step that have a verdict, on all processes and in all micro-batches, so accumulation changes nothing; the others
    are counted in `pairs/unscored`. With `extragradient` it is EGPO: only sampling sees the half point.

    Logged besides TRL's: `kl` (mean log-ratio of the first answer, the policy's), `rewards/margins` and
    `rewards/accuracies` by the side that is preferred, `loss/NAME`, `pairs/unscored` and `pairs/identical`, a number each step.

    Args:
        model: As TRL's.
        reward_funcs: As TRL's; their weighted sum says which answer is better. In place of `scorer`.
        args: `OnlinePreferenceConfig`.
        train_dataset: Rows with `prompt`; other columns are handed to rewards or scorer.
        eval_dataset: Likewise.
        processing_class: As TRL's.
        reward_processing_classes: As TRL's.
        callbacks: As TRL's.
        optimizers: As TRL's.
        quantization_config: As TRL's.
        peft_config: As TRL's.
        scorer: Any of `align.judges`; compares the two answers. In place of `reward_funcs`.

    Raises:
        TypeError: If `args` is not an OnlinePreferenceConfig.
        ValueError: If nothing compares the answers, or two things do, or the data have images.
    """

    args: OnlinePreferenceConfig
    config_class = OnlinePreferenceConfig

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        args: TRLGRPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase | None] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
        *,
        scorer: Scorer | None = None,
    ) -> None:
        args = own_args(self, OnlinePreferenceConfig, args, model, peft_config)
        self.wins = None if scorer is None else Wins(scorer)
        raise_problems(problems_of(reward_funcs, scorer, args, train_dataset))
        super().__init__(
            model, [self.wins] if self.wins is not None else reward_funcs, args, train_dataset=train_dataset,
            eval_dataset=eval_dataset, processing_class=processing_class,
            reward_processing_classes=reward_processing_classes, callbacks=callbacks, optimizers=optimizers,
            quantization_config=quantization_config, peft_config=peft_config,
        )  # fmt: skip
        aux = [self.columns.names[place] for place in self.columns.aux]
        raise_problems([f"reward_funcs: {n} has `aux`, and nothing reads it" for n in aux])
        self._verdicts: Verdicts | None = None
        names = [] if self.wins is not None else self.columns.names
        self._told = None if args.prompt_weights is None else PromptWeights(names, args.prompt_weights, args.seed)
        self._silent = 0

    # Sampling and judging: once a step.

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """The answers to all prompts, which stand there twice: first and second."""
        second = self.args.second
        if second == "policy":
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        own, _ = super()._generate_single_turn(prompt_ids[::2], *args, **kwargs)
        with reference_answers(self) if second == "reference" else mixture_answers(self, self.args.mixture):
            others, _ = super()._generate_single_turn(prompt_ids[1::2], *args, **kwargs)
        return [answer for pair in zip(own, others, strict=True) for answer in pair], None

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        weights: Any = self.reward_weights
        if self._told is not None:  # rewards read the prompts as the data have them
            args, weights = (args[0], self._told.asked, *args[2:]), self._told.of_pairs(self.accelerator)
        rewards = super()._calculate_rewards(*args, **kwargs)
        table, _ = self.columns.split(rewards)
        heat, by = self.args.reward_temperature, self.args.preferred_by
        self._verdicts = of_judge(table) if self.wins else of_rewards(table, weights, temperature=heat, by=by)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        training = self.model.training
        if self._told is not None:
            inputs = self._told.told(inputs, self.state.global_step)
        with contextlib.ExitStack() as until_sampled:
            if training and self.args.extragradient:
                with metrics_aside(self):  # what is logged is of the answers that are learnt from
                    batches = split_tensor_dict(self._pairs(inputs), self.args.gradient_accumulation_steps)
                    until_sampled.enter_context(half_step(self, batches))
            pairs = self._pairs(inputs)
        if training:
            self._silent = 0 if pairs["verdicts"] else self._silent + 1
            if self._silent == SILENT:
                raise RunError(self._nothing_said())
        return pairs

    def _pairs(self, inputs: Any) -> dict[str, Any]:
        """Two answers to each prompt of this process: dimension 0 is the pair, 1 first and second answer."""
        output = super()._generate_and_score_completions(inputs)
        rows = {name: output[name].unflatten(0, (-1, 2)) for name in ROWS}
        verdicts, count = self._verdicts, len(rows["prompt_ids"])
        assert verdicts is not None
        own = slice(self.accelerator.process_index * count, (self.accelerator.process_index + 1) * count)
        device = rows["prompt_ids"].device
        mode = logged(self, self.mode)
        for name in [
            n for n in mode if n in ("reward", "reward_std", "frac_reward_zero_std") or n.startswith("rewards/judge/")
        ]:
            del mode[name]  # of groups, or one half
        mode["pairs/unscored"].append(float((~verdicts.given).sum()))
        same = (rows["completion_ids"][:, 0] == rows["completion_ids"][:, 1]).all(dim=1)
        every: Any = self.accelerator.reduce(same.sum())
        mode["pairs/identical"].append(float(every))
        return rows | {
            "ref_logps": (output["ref_per_token_logps"] * output["completion_mask"]).sum(dim=1).unflatten(0, (-1, 2)),
            "preference": labels(verdicts.preference, self.args.label)[own].to(device, torch.float32),
            "scores": verdicts.scores[own].to(device, torch.float32),
            "given": verdicts.given[own].to(device),
            "verdicts": verdicts.given.sum().to(device),
        }

    def _nothing_said(self) -> str:
        why = self.wins.reasons.most_common(1) if self.wins is not None else []
        said = f"; it says: {why[0][0]}" if why else ""
        who = "the scorer gave no verdict" if self.wins is not None else "the rewards compared no pair (None or NaN)"
        return (
            f"step {self.state.global_step + 1}: {who} in {SILENT} steps in a row{said}. Nothing would be learnt: mend it, "
            "or take another"
        )

    # Learning: for each micro-batch.

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The part of the step's mean loss that this micro-batch has; the sum over micro-batches is the mean.

        Raises:
            ValueError: If outputs are asked for, which are never built.
        """
        if return_outputs:
            raise ValueError("OnlinePreferenceTrainer: outputs are never built; ask for the loss alone")
        rows = flat(inputs)
        ids, mask = whole(rows)
        said = rows["completion_mask"].bool()
        logps = sequence_logps(completion_logps(self, model, ids, mask, said.size(1)), said).unflatten(0, (-1, 2))
        result = self.preference_loss(
            Pair(*logps.unbind(1)), Pair(*inputs["ref_logps"].unbind(1)), Pair(*said.sum(dim=1).to(logps.dtype).unflatten(0, (-1, 2)).unbind(1)), inputs["preference"],
            inputs["scores"],
        )  # fmt: skip
        self._note(result, inputs, logps.detach(), inputs["given"])
        total = result.losses.masked_fill(~inputs["given"], 0.0).sum()
        return total * self.accelerator.num_processes / inputs["verdicts"].clamp(min=1)

    def preference_loss(
        self,
        policy: Pair,
        ref: Pair,
        tokens: Pair,
        preference: Float[Tensor, " pairs"],
        scores: Float[Tensor, "pairs 2"],
    ) -> PreferenceLoss:
        """The objective of these settings; see `online_pair_loss`."""
        columns = {"chosen_reward": scores[:, 0], "rejected_reward": scores[:, 1]}
        args = self.args
        return online_pair_loss(
            PairBatch(policy, ref, tokens, columns), args.active(), preference, beta=args.beta,
            optimism=args.optimism if args.second == "reference" else 0.0, **args.settings(),
        )  # fmt: skip

    def _note(
        self,
        result: PreferenceLoss,
        inputs: dict[str, Tensor],
        logps: Float[Tensor, "pairs 2"],
        given: Bool[Tensor, " pairs"],
    ) -> None:
        """Log the means over pairs of all processes; those without a verdict, or with a tie where sides matter, stay out."""
        side = torch.sign(inputs["preference"] - 0.5)
        margin = (result.rewards.chosen - result.rewards.rejected).detach() * side
        zero = torch.zeros_like(margin)
        decided = given & (side != 0)
        values = {
            "kl": (logps[:, 0] - inputs["ref_logps"][:, 0], torch.ones_like(given)),
            "rewards/margins": (margin, decided),
            "rewards/accuracies": (accuracy(Pair(margin, zero)), decided),
            **{f"loss/{name}": (value.detach(), given) for name, value in result.components.items()},
        }
        table = torch.stack([value.masked_fill(~there, torch.nan) for value, there in values.values()], dim=1)
        means: Any = self.accelerator.gather(table)
        for name, mean in zip(values, means.nanmean(dim=0).tolist(), strict=True):
            logged(self, self.mode)[name].append(mean)

    def _look_at_reference(self, first_step: Any, batch: dict[str, Any]) -> None:
        super()._look_at_reference(first_step, flat(batch))


def flat(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The answers of a micro-batch one below the other, both of a pair together."""
    return {name: batch[name].flatten(0, 1) for name in ROWS}


def problems_of(rewards: Any, scorer: Any, args: OnlinePreferenceConfig, data: Any) -> list[str]:
    """What keeps answers from being compared by what a trainer is given."""
    found, empty = [], rewards is None or rewards == []
    if empty and scorer is None:
        found.append("scorer: nothing compares the answers; give a scorer of align.judges, or reward_funcs")
    elif not empty and scorer is not None:
        found.append("scorer: reward_funcs compare the answers, too; give one of the two")
    if scorer is not None:
        if not isinstance(scorer, Scorer):
            found.append(f"scorer: has no method `prefer(prompt, answers, **columns)`, got {type(scorer).__name__}; wrap a "
                         "reward function in align.judges.scorers.RewardScorer, or give it as reward_funcs")  # fmt: skip
        found += [
            f"{name}: rewards have it, and a scorer compares the answers, got {getattr(args, name)}; leave it out"
            for name in OF_REWARDS
            if getattr(args, name) != defaults_of(args)[name]
        ]
    found += [
        f"train_dataset: the column {name!r} is not read: answers to pictures are not sampled here"
        for name in image_columns(data)
    ]
    return found
