"""Measures how far the policy has moved since it last answered a prompt (SPO, arXiv:2509.13232)."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor
from trl.trainer.utils import pad

from align.trainers.shared.dropout import dropout_off
from align.trainers.shared.scored import ROWS, whole
from align.trainers.shared.trl_contract import completion_logps
from align.weighting.single_stream import SingleStream


def drift(
    trainer: Any, estimator: SingleStream, prompts: Sequence[int], output: dict[str, Tensor]
) -> Float[Tensor, " batch"]:
    """Mean absolute change of the log-probabilities of the last answers to all processes' prompts, in nats a token.

    0 for a prompt that was not answered before. The new answers take the place of those before, on every process. It costs
    two forward passes without gradient over one answer to each prompt, without dropout.

    Args:
        trainer: Whose policy it is.
        estimator: Holds the last answers.
        prompts: This process's, as the table names them.
        output: Rows of this process as they were generated, with `prompt_ids`, `completion_ids` and their masks.
    """
    size, measured = trainer.args.per_device_train_batch_size, []
    with torch.no_grad(), dropout_off(trainer.model):
        for start in range(0, len(prompts), size):
            rows = {name: output[name][start : start + size] for name in ROWS}
            written = rows["completion_mask"].bool()
            said = written & output["tool_mask"][start : start + size].bool() if "tool_mask" in output else written
            logps = _logps(trainer, rows, rows["completion_ids"], rows["completion_mask"]).masked_fill(~said, torch.nan)
            new = [
                (ids[w].int().cpu(), own[w].cpu())
                for ids, w, own in zip(rows["completion_ids"], written, logps, strict=True)
            ]
            named = prompts[start : start + size]
            last = [estimator.answers.get(prompt, answer) for prompt, answer in zip(named, new, strict=True)]
            ids = pad([ids.long() for ids, _ in last], padding_value=0).to(logps.device)
            mask = pad([torch.ones_like(ids).long() for ids, _ in last], padding_value=0).to(logps.device)
            now = _logps(trainer, rows, ids, mask)
            for prompt, answer, (_, then), row in zip(named, new, last, now.cpu(), strict=True):
                moved = (row[: len(then)] - then).abs().nanmean().nan_to_num(nan=0.0).item()
                measured.append((prompt, moved if prompt in estimator.answers else 0.0, answer))
    every = gather_object(measured)
    for prompt, _, (ids, logps) in every:
        if not logps.isnan().all():
            estimator.answers[prompt] = ids, logps
    return torch.tensor([moved for _, moved, _ in every], dtype=torch.float64)


def _logps(trainer: Any, rows: dict[str, Tensor], ids: Tensor, mask: Tensor) -> Float[Tensor, "rows time"]:
    answered = rows | {"completion_ids": ids, "completion_mask": mask}
    return completion_logps(trainer, trainer.model, *whole(answered), ids.size(1)).float()
