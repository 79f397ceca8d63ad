"""Trains SRPO: every pair also after each of its answers as a draft."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset, concatenate_datasets
from torch import Tensor

from align.configs.srpo import SRPOConfig
from align.data.audit.lengths import IDS
from align.data.prompts.revision import revision_prompt
from align.data.rows.columns import TEMPLATE
from align.data.rows.explicit import explicit
from align.losses import Pair, PreferenceLoss, log_ratios
from align.losses.srpo import srpo_loss
from align.trainers.shared.trl_contract import keep_columns

from .preference import PreferenceTrainer

ROLES = ("plain", "given_chosen", "given_rejected")


class SRPOTrainer(PreferenceTrainer):
    """SRPO: answering and improving on a draft, learnt together by one model. See `losses.srpo.srpo_loss`.

    A batch of B rows is scored as 3 B pairs: plain, after the chosen answer, after the rejected one. Logged metrics are
    means over all of them; `rewards/*` are those of the plain answers. A row any of whose prompts alone fills
    `max_length` is left out. Streamed data are not supported.
    """

    config_class = SRPOConfig
    as_read = None
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "srpo"]
    _name = "SRPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Self-Improving Robust Preference Optimization",
        "id": "2406.01660",
    }

    def constructed(self) -> None:
        """Rows become three pairs in the collator, after all that looks at them as they are."""
        self.data_collator = _Threefold(self.data_collator)
        self.sums.rows_per_example = len(ROLES)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        """TRL's, for each of the three prompts of a row."""
        if not isinstance(dataset, Dataset):
            raise ValueError(f"{type(self).__name__}: streamed data sets are not supported; load them whole")
        dataset = explicit(dataset, "pairs", where=f"{type(self).__name__}: {dataset_name} data")
        read = [name for name in ("prompt", "chosen", "rejected", *TEMPLATE) if name in dataset.column_names]
        rows = dataset.select_columns(read).add_column("row", np.arange(len(dataset)))
        prepared: dict[str, Any] = {
            role: super(SRPOTrainer, self)._prepare_dataset(
                _with_draft(rows, role, args.revision_instruction), processing_class, args, f"{dataset_name} ({role})"
            )
            for role in ROLES
        }
        kept = sorted(set.intersection(*(set(part["row"]) for part in prepared.values())))
        columns = []
        for role, part in prepared.items():
            at = {row: index for index, row in enumerate(part["row"])}
            chosen = part.select([at[row] for row in kept]).select_columns(list(IDS))
            columns.append(chosen.rename_columns({name: _column(role, name) for name in IDS}))
        return concatenate_datasets(columns, axis=1)

    def _set_signature_columns_if_needed(self) -> None:
        """TRL's, and the ids of the revisions."""
        super()._set_signature_columns_if_needed()
        for role in ROLES:
            keep_columns(self, [_column(role, name) for name in IDS])

    def preference_loss(self, policy: Pair, ref: Pair, tokens: Pair, **columns: Tensor) -> PreferenceLoss:
        """A row's loss stands at each of its three pairs, so that the mean over pairs is that over rows."""
        ratio = log_ratios(policy, ref)
        parts = zip(ratio.chosen.chunk(3), ratio.rejected.chunk(3), strict=True)
        plain, given_chosen, given_rejected = (Pair(*part) for part in parts)
        result = srpo_loss(plain, given_chosen, given_rejected, beta=self.args.beta, alpha=self.args.alpha)
        rewards = Pair(result.rewards.chosen.repeat(3), result.rewards.rejected.repeat(3))
        components = {name: value.repeat(3) for name, value in result.components.items()}
        return PreferenceLoss(result.losses.repeat(3), rewards, components, {})


def _column(role: str, name: str) -> str:
    return name if role == "plain" else f"{role}_{name}"


def _with_draft(rows: Dataset, role: str, instruction: str) -> Dataset:
    if role == "plain":
        return rows
    draft = role.removeprefix("given_")
    return rows.map(lambda row: {"prompt": revision_prompt(row["prompt"], row[draft], instruction)})


class _Threefold:
    """A collator of rows as three blocks of pairs: plain, after the chosen answer, after the rejected one."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return self.collator(
            [{name: example[_column(role, name)] for name in IDS} for role in ROLES for example in examples]
        )
