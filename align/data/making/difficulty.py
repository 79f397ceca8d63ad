"""Measures how far the reference is from ranking a pair as it is labelled, and keeps pairs of a range of that.

Source: Chen et al. 2024, Preference Learning Algorithms Do Not Learn Preference Rankings (arXiv:2405.19534).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from align.data.rows.normalise import REF_COLUMNS
from align.errors import DataError


def difficulty(ref_chosen_logps: Sequence[float | int], ref_rejected_logps: Sequence[float | int]) -> list[float]:
    """What log ref(rejected) - log ref(chosen) is for each pair: c in nats, summed over tokens.

    Negative where the reference ranks the pair right. The policy does, log policy(chosen) >= log policy(rejected), if and
    only if log_ratio(chosen) - log_ratio(rejected) >= c, that is, if the DPO loss is at most `loss_threshold`.
    """
    chosen, rejected = (np.asarray(logps, float) for logps in (ref_chosen_logps, ref_rejected_logps))
    return (rejected - chosen).tolist()


def loss_threshold(difficulties: Sequence[float | int], beta: float) -> list[float]:
    """The DPO loss in nats, -log sigmoid(beta c), up to which the policy ranks a pair right."""
    return np.logaddexp(0.0, -beta * np.asarray(difficulties, float)).tolist()


def with_difficulty(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs with the further column `difficulty`, in nats.

    Args:
        pairs: Rows with the columns `ref_chosen_logps` and `ref_rejected_logps`.

    Raises:
        DataError: Naming the rows where they are missing or not finite.
    """
    logps = np.array([[_logps(row.get(name)) for name in REF_COLUMNS] for row in pairs]).reshape(-1, 2)
    bad = (np.flatnonzero(~np.isfinite(logps).all(axis=1)) + 1).tolist()
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(
            f"difficulty: {len(bad)} of {len(pairs)} pairs lack finite {' and '.join(REF_COLUMNS)}: rows "
            f"{', '.join(map(str, bad[:10]))}{more}; score them with the reference first"
        )
    found = difficulty(logps[:, 0].tolist(), logps[:, 1].tolist())
    return [{**row, "difficulty": value} for row, value in zip(pairs, found, strict=True)]


def of_difficulty(
    pairs: Sequence[Mapping[str, Any]], *, low: float | int, high: float | int, quantiles: bool = False
) -> list[Mapping[str, Any]]:
    """The pairs whose `difficulty` is from `low` to `high`, both included, in their order.

    Args:
        pairs: What `with_difficulty` returns.
        low: In nats, or a quantile of these pairs in [0, 1].
        high: Likewise.
        quantiles: Whether `low` and `high` are quantiles.

    Raises:
        ValueError: If the range is empty, or no range of quantiles.
    """
    if not low <= high or (quantiles and not (low >= 0 and high <= 1)):
        raise ValueError(f"difficulty: from {low} to {high} is no range{' of quantiles' if quantiles else ''}")
    if quantiles and pairs:
        low, high = np.quantile([row["difficulty"] for row in pairs], [low, high]).tolist()
    return [row for row in pairs if low <= row["difficulty"] <= high]


def _logps(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
