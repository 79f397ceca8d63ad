"""Trains towards the reference times e^(reward / beta), by the gradient of an f-divergence (f-DPG, arXiv:2302.08215)."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from align.configs.own_losses import FDPGConfig
from align.losses.matching import Normalisers, fdpg_loss, pseudo_reward
from align.losses.preference import sequence_logps
from align.runs.parts import read_part
from align.trainers.shared.scored import whole
from align.trainers.shared.trl_contract import completion_logps, logged

from .gradients import share_of_step
from .rewards import prompt_hash, weighted_sum
from .single_answers import SingleAnswers


@dataclass
class Seen:
    """Of earlier batches: the sums that Z is made of, and the last pseudo-rewards."""

    normalisers: Normalisers
    window: Tensor


class FDPGTrainer(SingleAnswers):
    """f-DPG (Go et al. 2023) towards p = π_ref e^(R / beta) / Z. Construct and use it as `GRPOTrainer`.

    The loss is a mean over prompts of means over their completions (`align.losses.matching`), with importance weights where
    the policy has moved since it sampled. Z of a prompt is the mean over all its completions ever. The baseline is the mean
    of the last `baseline_window` pseudo-rewards of all prompts, without those of the batch, and 0 for the first batch. Both are the
    same on every process, and in checkpoints. An evaluation leaves them as they are.

    The law is that over completions of at most `max_completion_length` tokens, a cut one being its beginning. Completions
    without a reward are left out. Several rewards are weighted and added. Deviations from the authors' code: the policy itself
    samples, never a copy; there is no largest Z.

    Logged besides: `log_z` (mean over prompts), `kl` (mean log π/π_ref), `kl_to_target` (mean log π/p), `baseline`.

    Raises:
        TypeError: If `args` is not an FDPGConfig.
    """

    args: FDPGConfig
    config_class = FDPGConfig

    @cached_property
    def seen(self) -> Seen:
        """What earlier batches have left."""
        return Seen(Normalisers(), torch.zeros(0, dtype=torch.float64))

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._total = weighted_sum(rewards.double().cpu(), self.reward_weights.cpu())
        self._prompts = gather_object([prompt_hash(prompt) for prompt in prompts])
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        said = output["completion_mask"].bool()
        sampled = output.get("old_per_token_logps")
        if sampled is None:
            ids, mask = whole(output)
            with torch.no_grad():
                sampled = completion_logps(self, self.model, ids, mask, said.size(1))
        own = torch.stack([sequence_logps(x.float(), said) for x in (sampled, output["ref_per_token_logps"])])
        every: Any = self.accelerator.gather(own.T.contiguous())
        rows = self._matched(*every.double().cpu().T)
        start = self.accelerator.process_index * len(said)
        mine = {name: column[start : start + len(said)].to(said.device) for name, column in rows.items()}
        return {name: value for name, value in output.items() if name != "old_per_token_logps"} | mine

    def _matched(self, sampled: Tensor, ref: Tensor) -> dict[str, Tensor]:
        """What the loss reads of every completion, of all processes."""
        given = ~self._total.isnan()
        score = ref + self._total.nan_to_num() / self.args.beta
        known = self.seen.normalisers if self.model.training else copy.deepcopy(self.seen.normalisers)
        counted = given.nonzero()[:, 0]
        known.add([self._prompts[place] for place in counted.tolist()], (score - sampled)[counted])
        log_z = known.of(self._prompts)
        target = score - log_z
        baseline = float(self.seen.window.mean()) if len(self.seen.window) else 0.0
        if self.model.training and self.args.baseline_window:
            new = pseudo_reward(sampled - target, name=self.args.divergence)[given]
            self.seen.window = torch.cat([self.seen.window, new])[-self.args.baseline_window :]
        groups = given.double().view(-1, self.group_size)
        counts = groups.sum(dim=1, keepdim=True)
        share = (groups / counts.clamp(min=1) / (counts > 0).sum().clamp(min=1)).flatten()
        told = {"log_z": log_z, "kl": sampled - ref, "kl_to_target": sampled - target}
        for name, values in told.items():
            logged(self, self.mode)[name].append(float((values * share).sum()))
        logged(self, self.mode)["baseline"].append(baseline)
        columns = {
            "sampled_logps": sampled,
            "target_logps": target,
            "share": share,
            "baseline": torch.full_like(share, baseline),
        }
        return {name: column.float() for name, column in columns.items()}

    def own_loss(self, logps: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """See `SingleAnswers.own_loss`."""
        policy = sequence_logps(logps.float(), inputs["completion_mask"].bool())
        losses = fdpg_loss(
            policy, inputs["sampled_logps"], inputs["target_logps"], inputs["baseline"], name=self.args.divergence
        )
        share = (losses * inputs["share"]).sum() * self.accelerator.num_processes
        return share * (share_of_step(self) if self.model.training else 1.0)

    def save_state(self, folder: Path) -> None:
        """And the normalisers and the baseline's pseudo-rewards, which are the same on every process."""
        super().save_state(folder)
        sums = [(prompt.hex(), *of) for prompt, of in self.seen.normalisers.sums.items() if isinstance(prompt, bytes)]
        torch.save({"sums": sums, "window": self.seen.window}, folder / f"matching_{self.args.process_index}.pt")

    def load_state(self, folder: Path) -> None:
        """Take up what `save_state` wrote.

        Raises:
            RunError: If another trainer wrote the checkpoint.
        """
        super().load_state(folder)
        state = read_part(folder / f"matching_{self.args.process_index}.pt", "f-DPG did not write it")
        self.seen.normalisers.sums = {bytes.fromhex(prompt): (total, count) for prompt, total, count in state["sums"]}
        self.seen.window = state["window"]
