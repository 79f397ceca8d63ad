"""Trains on the tokens at which completions of a prompt part (T-SPMO, arXiv:2504.20834)."""

from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from align.configs.own_losses import TSPMOConfig
from align.trainers.shared.trl_contract import logged
from align.weighting.prefixes import prefix_credit

from .gradients import share_of_step
from .rewards import weighted_sum
from .single_answers import SingleAnswers


class TSPMOTrainer(SingleAnswers):
    """Token-Specific Prefix Matching Optimization (Lee and Tong 2025). Construct and use it as `GRPOTrainer`.

    The loss is minus the mean over prompts of the mean over their pairs of π(v|p) A(p, v): a prefix p, a token v, and by how
    much completions that go on so are better than those that go on otherwise (`align.weighting.prefixes`). The paper has
    one prompt a step; here each prompt counts alike, and one whose completions do not part counts 0. There is no ratio
    and no clipping: the probability is the policy's of the step. Several rewards are weighted and added.

    Logged besides: `prefixes/pairs` (a prompt) and `prefixes/tokens` (the share of tokens that are learnt from).

    Raises:
        TypeError: If `args` is not a TSPMOConfig.
    """

    args: TSPMOConfig
    config_class = TSPMOConfig

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        total = weighted_sum(rewards.double().cpu(), self.reward_weights.cpu()).tolist()
        every = gather_object([list(map(int, ids)) for ids in completion_ids_list])
        size, rows, pairs = self.group_size, [], []
        for first in range(0, len(every), size):
            credit, count = prefix_credit(every[first : first + size], total[first : first + size])
            rows += credit
            pairs.append(count)
        start = self.accelerator.process_index * len(completion_ids_list)
        self._credit = [[value / len(pairs) for value in row] for row in rows[start : start + len(completion_ids_list)]]
        metrics = logged(self, self.mode)
        metrics["prefixes/pairs"].append(sum(pairs) / len(pairs))
        learnt, tokens = sum(value != 0 for row in rows for value in row), sum(map(len, every))
        metrics["prefixes/tokens"].append(learnt / max(tokens, 1))
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        credit = torch.zeros(output["completion_ids"].shape)
        for row, values in enumerate(self._credit):
            credit[row, : len(values)] = torch.tensor(values)
        return output | {"credit": credit.to(output["completion_ids"].device)}

    def own_loss(self, logps: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """See `SingleAnswers.own_loss`."""
        probable = logps.masked_fill(inputs["completion_mask"] == 0, 0.0).float().exp()
        share = -(probable * inputs["credit"]).sum() * self.accelerator.num_processes
        return share * (share_of_step(self) if self.model.training else 1.0)
