"""Scores packed rows only after they were seen to give the same log-probabilities as padded ones."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from accelerate import Accelerator
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor, nn

from align.scoring.plan import Plan
from align.scoring.shared_prefix import (
    NotEquivalent,
    SharedPrefixModel,
    check_equivalent,
    prepare,
    restore,
    unsupported,
)

from .dropout import dropout_off
from .precompute import collated
from .reference import moved, sharded
from .scored import scoring_inputs
from .trl_contract import fast_head, scores_reference

logger = logging.getLogger(__name__)

PACKABLE = frozenset({"input_ids", "attention_mask", "labels"})
Mode = Literal["auto", "on", "off"]


class PrefixSharing:
    """Decides, model by model and by two prompts of the first batch of each, whether its rows are packed.

    Args:
        mode: `auto` falls back to padded rows with one line that says why, `on` raises instead, `off` never packs.
        max_length: Longest row in tokens, or None.
    """

    def __init__(self, mode: Mode, max_length: int | None) -> None:
        self.mode = mode
        self.max_length = max_length
        self._packs: dict[int, bool] = {}
        self._plan: tuple[Tensor, Plan] | None = None

    def scorer(self, model: Any, batch: dict[str, Tensor], accelerator: Accelerator) -> Callable[..., Any]:
        """The model itself, or what scores its packed rows in its place.

        Args:
            model: As the Trainer hands it out, wrapped or not.
            batch: What the model is given to score: `input_ids`, `attention_mask`, `labels` and whatever else.
            accelerator: For what several processes must agree on.

        Raises:
            ValueError: Under mode `on`, if rows of this model cannot be packed.
        """
        base = accelerator.unwrap_model(model, keep_torch_compile=False)
        if self.mode != "off" and id(base) not in self._packs:
            self._packs[id(base)] = self._settle(model, base, batch, accelerator)
        return SharedPrefixModel(model, plan=self._plan_of) if self.packs(model, accelerator) else model

    def decide(self, trainer: Any, dataset: Dataset, rows: int) -> None:
        """Decide for what scores the reference before training, by the first rows of a data set."""
        batch = scoring_inputs(collated(trainer, dataset, range(min(rows, len(dataset)))))
        self.scorer(scores_reference(trainer), batch, trainer.accelerator)

    def packs(self, model: Any, accelerator: Accelerator) -> bool:
        """Whether rows of this model are packed, as its first batch decided."""
        return self._packs.get(id(accelerator.unwrap_model(model, keep_torch_compile=False)), False)

    def positions(self, scorer: Any, batch: dict[str, Tensor]) -> tuple[int, int]:
        """Positions that the last forward pass, of this batch, computed, and how many of them were padding."""
        if isinstance(scorer, SharedPrefixModel):
            if self._plan is None or self._plan[0] is not batch["input_ids"]:
                raise ValueError("this batch was not scored last")
            return self._plan[1].input_ids.numel(), self._plan[1].filler
        mask = batch["attention_mask"]
        return mask.numel(), mask.numel() - int(mask.sum())

    def at_answers(
        self, hidden: Float[Tensor, "rows time width"], mask: Bool[Tensor, "batch targets"], *, packed: bool
    ) -> Float[Tensor, "scored width"]:
        """Of the last batch's hidden states, those that predict the tokens of `mask`, row by row.

        Args:
            hidden: As the model computed them, of padded rows or, if `packed`, of one packed row.
            mask: The scored tokens, each at the position that predicts it.
            packed: Whether the model's rows are packed (`packs`).
        """
        if not packed or self._plan is None:
            return hidden[:, :-1][:, -mask.size(1) :][mask]
        plan = self._plan[1]
        return hidden[0][plan.source[plan.cells.argsort()]]

    def _plan_of(self, input_ids: Tensor, make: Callable[[], Plan]) -> Plan:
        if self._plan is None or self._plan[0] is not input_ids:  # policy and reference score the same batch
            self._plan = (input_ids, make())
        return self._plan[1]

    def _settle(self, model: Any, base: nn.Module, batch: dict[str, Tensor], accelerator: Accelerator) -> bool:
        reason = unsupported(base, max_length=self.max_length)
        if reason is None and set(batch) != PACKABLE:
            reason = f"the batch has more than tokens ({', '.join(sorted(set(batch) - PACKABLE))})"
        previous = prepare(base) if reason is None else None
        if reason is None:
            try:
                with dropout_off(base), fast_head(), moved(base):  # a new adapter adds zero, which shows nothing
                    forward, exact = without_autocast(model, base, accelerator)
                    check_equivalent(forward, few(batch), exact=exact)
            except Exception as error:
                kind = "" if isinstance(error, NotEquivalent) else f"{type(error).__name__}: "
                reason = f"{type(base).__name__}: the first batch, scored both ways, says no: {kind}{error}"
        refused: Any = accelerator.gather(torch.tensor([reason is not None], device=accelerator.device))
        if bool(refused.any()) and reason is None:
            reason = "another process cannot"
        if reason is not None and previous is not None:
            restore(base, previous)
        if reason is not None and self.mode == "on":
            raise ValueError(f"shared_prefix: 'on', but {reason}; use 'auto' or 'off'")
        if reason is not None and accelerator.is_main_process:
            logger.warning("shared_prefix: every prompt is computed once per answer, because %s", reason)
        return reason is None


def few(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of the two prompts of middling length, cut to the columns they need.

    The check costs forward passes in full precision, and more prompts would show nothing more.
    """
    present = batch["attention_mask"].bool()
    prompts: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(present & (batch["labels"] == -100)):
        prompts.setdefault(tuple(batch["input_ids"][row][prompt].tolist()), []).append(row)
    groups = sorted(prompts.values(), key=lambda rows: int(present[rows].sum()))
    middle = max(len(groups) - 2, 0) // 2
    rows = sorted(row for group in groups[middle : middle + 2] for row in group)
    columns = present[rows].any(dim=0)
    return {name: value[rows][:, columns] for name, value in batch.items()}


def without_autocast(model: Any, base: nn.Module, accelerator: Accelerator) -> tuple[Callable[..., Any], bool]:
    """A forward that computes in the precision of its inputs, and whether it does.

    Accelerate's `prepare` wraps the forward in autocast and keeps the original; shards need the wrapper they are in.
    """
    quantised = any(not p.is_floating_point() for p in base.parameters())
    wrapper = sharded(accelerator)
    return (model if wrapper else getattr(base, "_original_forward", base)), not (wrapper or quantised)
