"""Trains PPO on windows of answers that go on in the next step (T-PPO, arXiv:2506.15050)."""

from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
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

from align.configs.own_losses import TPPOConfig
from align.losses.online import clipped_policy_loss
from align.runs.parts import read_part
from align.trainers.completions.values import VALUES, Hidden, ValueHead
from align.trainers.online.gradients import share_of_step
from align.trainers.online.rewards import weighted_sum
from align.trainers.online.single_answers import SingleAnswers
from align.trainers.shared.base import own_args
from align.trainers.shared.columns import image_columns
from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.scored import ROWS, backbone_of, last_hidden, whole
from align.trainers.shared.trl_contract import completion_logps, logged, show_advantages
from align.tuning.parts import take_away
from align.weighting.truncated import extended_gae

from .slots import Slots


class TPPOTrainer(SingleAnswers):
    """Truncated Proximal Policy Optimization (Fan et al. 2025). Construct and use it as `GRPOTrainer`.

    Each generation batch goes on with the answers that are under way, by at most `window_length` tokens each, and begins new
    ones in the places of those that are finished: by an end of sequence, or by `max_completion_length` tokens, and then
    scored as they are. The tokens of this window are learnt from by PPO's clipped loss, a mean over those of the generation
    batch; their advantages are `align.weighting.truncated.extended_gae`. Context is read anew in each step, so a window costs
    a forward pass over all that came before.

    The value head is linear, in float32, on the policy's last hidden states, in which it has no gradient (`ValueHead`). So the
    value loss cannot move the policy, and no second model or adapter is kept in memory or run.
    It is a mean over all tokens of the answers that are finished in the generation batch, on their returns; where none is, it
    takes no step. It begins at 0, from which a window that goes on teaches nothing: `critic_warmup` trains it alone first.

    With `beta`, -β (log π - log π_ref) of each token is part of its reward, by the policy that writes the window; in the returns
    tokens of earlier windows count by that policy too. Rewards are weighted and added; a finished answer without one is not learnt
    from. Deviation from the paper: the head, in the place of a critic of its own. The paper's text was not read; what is here is
    as two digests and its reviews give it.

    An epoch is only a number of generation batches: prompts are taken as places become free. An evaluation answers whole.

    Logged besides: `windows/tokens` and `values/tokens`, which a generation batch teaches policy and head; `windows/finished`
    (share of the answers); `values/mean` (V in the windows); `loss/value`; `kl` (mean log π/π_ref in the windows).

    Raises:
        TypeError: If `args` is not a TPPOConfig.
        ValueError: If the training data are streamed, or have images.
    """

    args: TPPOConfig
    config_class = TPPOConfig

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
    ) -> None:
        args = own_args(self, TPPOConfig, args, model, peft_config)
        if isinstance(train_dataset, IterableDataset):
            raise ValueError(
                "TPPOTrainer: train data: prompts are taken as places become free, and the data are streamed"
            )
        if images := image_columns(train_dataset):
            raise ValueError(f"TPPOTrainer: train data: the column {images[0]!r} is not read: answers to pictures do not go on "
                             "in a next step; leave it out")  # fmt: skip
        super().__init__(
            model, reward_funcs, args, train_dataset=train_dataset, eval_dataset=eval_dataset,
            processing_class=processing_class, reward_processing_classes=reward_processing_classes,
            callbacks=callbacks, optimizers=optimizers, quantization_config=quantization_config,
            peft_config=peft_config,
        )  # fmt: skip
        data, steps = cast("Dataset", self.train_dataset), cast("int", args.steps_per_generation)
        count = args.per_device_train_batch_size * steps
        self.slots = Slots(data, count, seed=args.seed, shuffle=bool(args.shuffle_dataset))
        self.values = ValueHead(self)
        self.unmoved.still = args.critic_warmup
        self._before: list[int] = []
        self._finished: list[bool] = []

    # A generation batch.

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        training = self.model.training
        if training:
            self.slots.fill(self.accelerator.process_index)
            inputs = self.slots.rows(inputs[0])
        output = super()._generate_and_score_completions(inputs)
        if training:
            self.slots.free(self._finished)
        return output | self._learnt(output)

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """The answers so far, each a window longer; in an evaluation whole ones."""
        if not self.model.training:
            answers, logps = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            self._before, self._finished = [0] * len(answers), [True] * len(answers)
            return answers, logps
        before = self.slots.tokens
        self._before = [len(tokens) for tokens in before]
        asked = [[*prompt, *tokens] for prompt, tokens in zip(prompt_ids, before, strict=True)]
        new = self.sampled_window(asked, *args, **kwargs)
        longest: Any = self.args.max_completion_length
        self._finished = self.slots.go_on(new, ends=self.eos_token_ids, longest=longest)
        return [list(tokens) for tokens in self.slots.tokens], None

    def sampled_window(self, asked: list[list[int]], *args: Any, **kwargs: Any) -> list[list[int]]:
        """At most `window_length` tokens that the policy writes after each of these rows of tokens."""
        config: Any = self.generation_config
        longest, config.max_new_tokens = config.max_new_tokens, self.args.window_length
        try:
            return super()._generate_single_turn(asked, *args, **kwargs)[0]
        finally:
            config.max_new_tokens = longest

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """Rewards of the finished answers, NaN for the others.

        Each process scores as many as that with the most: those with fewer also score some that are not finished, for nothing.
        """
        number, first = len(prompts), self.accelerator.process_index * len(prompts)
        order = sorted(range(number), key=lambda row: not self._finished[row])
        most = max(gather_object([sum(self._finished)]))
        device, processes = self.accelerator.device, self.accelerator.num_processes
        table = torch.full((number * processes, len(self.reward_funcs)), torch.nan, device=device)
        if most:
            chosen = order[:most]
            columns = (inputs, prompts, completions, completion_ids_list)
            scored = super()._calculate_rewards(*([column[row] for row in chosen] for column in columns))
            places = gather_object([first + row if self._finished[row] else None for row in chosen])
            for rewards, place in zip(scored, places, strict=True):
                if place is not None:
                    table[place] = rewards
        total = weighted_sum(table.double().cpu(), self.reward_weights.cpu())
        self._total = total[first : first + number]
        return table

    def _learnt(self, output: dict[str, Any]) -> dict[str, Tensor]:
        """What the losses read of each token of this process's answers, and how many tokens all processes have for each."""
        said = output["completion_mask"].bool().cpu()
        written, finished = torch.tensor(self._before), torch.tensor(self._finished)
        window = said & (torch.arange(said.size(1)) >= written[:, None])
        values, logps = self._read(output)
        drift = torch.zeros_like(values)
        if self.args.beta:
            drift = (logps - output["ref_per_token_logps"].double().cpu()).masked_fill(~said, 0.0)
        last = torch.arange(said.size(1)) == said.sum(dim=1)[:, None] - 1
        rewards = last * self._total.nan_to_num()[:, None] - self.args.beta * drift
        taught = said & (finished & ~self._total.isnan())[:, None]
        gamma, lam = self.args.gamma, self.args.lam
        advantages = extended_gae(values, rewards, window, finished, gamma=gamma, lam=lam)
        advantages = advantages.masked_fill((finished & self._total.isnan())[:, None], 0.0)
        returns = extended_gae(torch.zeros_like(values), rewards, said, finished, gamma=gamma, lam=1.0)
        inside = window.double()
        sums = [
            inside.sum(),
            taught.sum(),
            finished.sum(),
            torch.tensor(len(said)),
            (values * inside).sum(),
            (drift * inside).sum(),
        ]
        device = self.accelerator.device
        counts: Any = self.accelerator.reduce(torch.stack([each.float() for each in sums]).to(device))
        self._log_counts(*counts.tolist())
        if self.model.training:
            shown: Any = self.accelerator.gather((advantages.sum(dim=1) / inside.sum(dim=1)).float().to(device))
            show_advantages(self, shown.tolist())
        columns = {"window": window, "taught": taught, "advantages": advantages.float(), "returns": returns.float()}
        return {name: column.to(device) for name, column in columns.items()} | {
            "window_tokens": counts[0], "value_tokens": counts[1],
        }  # fmt: skip

    def _log_counts(
        self, window: float, taught: float, finished: float, answers: float, values: float, drift: float
    ) -> None:
        metrics = logged(self, self.mode)
        metrics["windows/tokens"].append(window)
        metrics["values/tokens"].append(taught)
        metrics["windows/finished"].append(finished / answers)
        metrics["values/mean"].append(values / window)
        if self.args.beta:
            metrics["kl"].append(drift / window)

    def _read(self, output: dict[str, Any]) -> tuple[Float[Tensor, "rows time"], Float[Tensor, "rows time"]]:
        """V_t and log π of each token by the policy as it is, without dropout, on the CPU."""
        values, logps = [], []
        size = self.args.per_device_train_batch_size if self.model.training else self.args.per_device_eval_batch_size
        with torch.no_grad(), dropout_off(self.model):
            for start in range(0, len(output["completion_ids"]), size):
                rows = {name: output[name][start : start + size] for name in ROWS}
                said = rows["completion_mask"].bool()
                with last_hidden(backbone_of(self.model)) as seen:
                    logps.append(completion_logps(self, self.model, *whole(rows), said.size(1)).double().cpu())
                values.append(self.values(hidden_before(seen[0], said)).double().cpu())
        return torch.cat(values), torch.cat(logps)

    # The losses.

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The policy's loss of this micro-batch; the head learns beside it from the same forward pass."""
        with last_hidden(backbone_of(self.model)) as seen:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not int(inputs["value_tokens"]):  # the same on every process
            return loss
        training, taught = self.model.training, inputs["taught"]
        share = share_of_step(self) if training else 1.0
        read = hidden_before(seen[0], taught)
        errors = self.values.learn(
            read, inputs["returns"][taught], inputs["value_tokens"] / share, training=training
        ).sum()
        every: Any = self.accelerator.reduce(errors / inputs["value_tokens"])
        parts: Any = self.args.steps_per_generation if training else 1
        logged(self, self.mode)["loss/value"].append(float(every) * parts)
        return loss + 0.0 * errors  # for the guard, if it is not finite

    def own_loss(self, logps: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """See `SingleAnswers.own_loss`."""
        window, args, sampled = inputs["window"], self.args, inputs.get("old_per_token_logps", logps)
        high = args.epsilon if args.epsilon_high is None else args.epsilon_high
        losses = clipped_policy_loss(logps, sampled, inputs["advantages"], epsilon=args.epsilon, epsilon_high=high)
        share = losses.masked_fill(~window, 0.0).sum() * self.accelerator.num_processes / inputs["window_tokens"]
        return share * (share_of_step(self) if self.model.training else 1.0)

    def hold_back(self) -> None:
        """And all gradients of the policy in the first `critic_warmup` steps."""
        super().hold_back()
        if self.state.global_step < self.args.critic_warmup:
            take_away(self.model, frozenset(name for name, _ in self.model.named_parameters()))

    def step_was_skipped(self) -> None:
        """The head learns nothing from it either."""
        super().step_was_skipped()
        self.values.forget()

    def save_state(self, folder: Path) -> None:
        """And the answers under way, and the value head with its optimizer."""
        super().save_state(folder)
        torch.save(self.slots.state_dict(), folder / f"slots_{self.args.process_index}.pt")
        if self.accelerator.is_main_process:
            torch.save(self.values.state_dict(), folder / VALUES)

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote.

        Raises:
            RunError: If another trainer wrote the checkpoint, or one with other batches.
        """
        super().load_state(folder)
        held = read_part(folder / f"slots_{self.args.process_index}.pt", "T-PPO did not write it")
        longest: Any = self.args.max_completion_length
        self.slots.load_state_dict(held, str(folder), longest=longest)
        self.values.load_state_dict(read_part(folder / VALUES, "no run with a value head wrote it"))


def hidden_before(states: Float[Tensor, "rows whole width"], mask: Bool[Tensor, "rows time"]) -> Hidden:
    """The states at the positions before the tokens of the mask, which are the last ones of their rows."""
    return Hidden(mask, states[:, -mask.size(1) - 1 : -1][mask])
