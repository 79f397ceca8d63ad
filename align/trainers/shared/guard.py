"""Skips a step whose loss or gradient is not finite, keeps its batch for replay, and ends in time."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from align.data.as_read import is_as_read
from align.data.audit.lengths import IDS
from align.data.rows.tables import counts, slices
from align.data.rows.truncation import truncated
from align.errors import RunError
from align.files import write_text

from .metrics import saved_state
from .reference import own_part

logger = logging.getLogger(__name__)

SKIPPED = "skipped"
INCIDENT = "incident.json"


class NumericalError(RunError, RuntimeError):
    """Too many steps had a loss or gradient that is not finite. The message says where what they computed is kept."""


class NumericalGuard(TrainerCallback, ExportableState):
    """Looks at loss and gradients of every optimizer step before it is taken.

    A step with a value that is not finite, on any process, leaves weights and optimizer as they were. Its batches, the
    rows they came from and the adapter's weights go to `skipped/step-N/` in the output directory, for
    `alignkit replay`. The learning rate goes on as if the step had been taken.

    Loss scaling in float16 has its own way to skip steps whose gradient overflows; only a loss that is not finite is
    counted there. Under DeepSpeed, which takes the step inside backward, the run ends at the first loss that is not
    finite.

    Args:
        limit: Training ends when so many steps have been skipped in a run.
        trainer: Whose steps they are.
    """

    def __init__(self, limit: int, trainer: Any) -> None:
        self.limit, self.trainer = limit, trainer
        self.skipped = 0
        self._batches: list[dict[str, Any]] = []
        self._losses: list[Tensor] = []

    def watch(self, batch: dict[str, Any], loss: Tensor) -> None:
        """Note a micro-batch and its loss, until the optimizer step it belongs to."""
        if self.trainer.is_deepspeed_enabled and not bool(torch.isfinite(loss).all()):
            raise NumericalError(
                f"step {self.trainer.state.global_step + 1}: the loss is {float(loss)}, under DeepSpeed"
            )
        self._batches.append(batch)
        self._losses.append(loss.detach())

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Let the step be taken, or take the gradients away, so that no optimizer changes anything.

        Raises:
            NumericalError: If `limit` steps have now been skipped.
        """
        batches, self._batches = self._batches, []
        losses, self._losses = self._losses, []
        if model is None or self.trainer.is_deepspeed_enabled:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        what = self.what_is_wrong(losses, gradients)
        if what is None:
            return
        for parameter in model.parameters():
            parameter.grad = None
        self.skipped += 1
        step = state.global_step + 1
        folder = Path(str(args.output_dir)) / SKIPPED / f"step-{step}"
        self._keep(folder, step, what, losses, batches)
        logger.error("step %d is skipped (%d so far): %s; see %s, or alignkit replay", step, self.skipped, what, folder)
        self.trainer.step_was_skipped()
        if self.skipped >= self.limit:
            raise NumericalError(
                f"{self.skipped} steps were skipped, the last at step {step}: {what}. Nothing of them is in the weights. "
                f"{folder.parent} holds their batches: `alignkit replay {args.output_dir}` shows which pair and which "
                "layer it begins in. A smaller learning rate, bf16 instead of fp16, or mended rows are the usual remedies"
            )

    def what_is_wrong(self, losses: Sequence[Tensor], gradients: Sequence[Tensor]) -> str | None:
        """What of a step is not finite, on any process; None if nothing is."""
        device = self.trainer.accelerator.device
        loss = (
            torch.stack([each.to(device).float() for each in losses]).sum()
            if losses
            else torch.zeros((), device=device)
        )
        norms = torch._foreach_norm([own_part(g) for g in gradients]) if gradients else []
        scaled = self.trainer.accelerator.scaler is not None
        norm = (
            torch.stack([n.to(device).float() for n in norms]).sum() if norms and not scaled else torch.zeros_like(loss)
        )
        bad = torch.stack([~torch.isfinite(loss), ~torch.isfinite(norm)]).float()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        bad_loss, bad_gradient = bad.tolist()
        if bad_loss:
            return f"the loss is not finite ({', '.join(f'{float(each):.4g}' for each in losses)} on this process)"
        return "the gradient is not finite" if bad_gradient else None

    def _keep(self, folder: Path, step: int, what: str, losses: list[Tensor], batches: list[dict[str, Any]]) -> None:
        """Best effort: a full disk must not turn a skipped step into a lost run."""
        rank = self.trainer.accelerator.process_index
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {
                f"{number}.{name}": value.detach().cpu().contiguous()
                for number, batch in enumerate(batches)
                for name, value in batch.items()
                if isinstance(value, Tensor)
            }
            save_file(tensors, folder / f"batches-{rank}.safetensors")
            record = {
                "step": step,
                "run": self.trainer.identity.run if self.trainer.identity else None,
                "what": what,
                "losses": [str(float(loss)) for loss in losses],
                "rows": [rows_of(batch, self.trainer.train_dataset, self.trainer.args) for batch in batches],
            }
            write_text(folder / f"{rank}-{INCIDENT}", json.dumps(record, indent=1) + "\n")
            policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
            if rank == 0 and isinstance(policy, PeftModel) and not self.trainer.is_fsdp_enabled:
                policy.save_pretrained(str(folder / "adapter"), selected_adapters=["default"])
        except OSError as error:
            logger.error("what step %d computed could not be kept: %s", step, error)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"skipped": self.skipped}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on counting where the checkpoint stopped."""
        saved = saved_state(state, self)
        self.skipped = int(saved["attributes"]["skipped"]) if isinstance(saved, dict) else 0


def rows_of(batch: dict[str, Any], data: Any, args: Any) -> list[int | None]:
    """Rows of the trainer's training set, counted from 0, that the pairs of a batch are; None where it cannot be told."""
    tokens = isinstance(data, Dataset) and ("chosen_ids" in data.column_names or is_as_read(data))
    if not tokens or "completion_mask" not in batch:
        return []
    wanted: dict[tuple[int, ...], list[int]] = {}
    masks, ids = batch["attention_mask"].bool(), batch["input_ids"]
    pairs = len(ids) // 2
    for index in range(pairs):
        sides = [tuple(ids[row][masks[row]].tolist()) for row in (index, index + pairs)]
        wanted.setdefault((*sides[0], -1, *sides[1]), []).append(index)
    lengths = {len(key) - 1 for key in wanted}
    found: list[int | None] = [None] * pairs
    limit = args.max_length
    start = 0
    for part in slices(data, IDS):
        prompt, chosen, rejected = (counts(part[n]) for n in part.column_names)
        for offset in range(len(prompt)):
            both = [int(prompt[offset] + side[offset]) for side in (chosen, rejected)]
            if sum(n if limit is None else min(n, limit) for n in both) not in lengths:
                continue
            beginning = part["prompt_ids"][offset].as_py()
            answers = (part[side][offset].as_py() for side in ("chosen_ids", "rejected_ids"))
            cut = [truncated(beginning, answer, limit) for answer in answers]
            sides = [prompt + completion for prompt, completion in cut]
            for index in wanted.get((*sides[0], -1, *sides[1]), ()):
                found[index] = start + offset if found[index] is None else found[index]
        start += len(prompt)
    return found
