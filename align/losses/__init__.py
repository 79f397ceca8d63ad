"""Objectives as pure functions of log-probabilities; the data flow is told in `preference.py`."""

from .divergences import DIVERGENCES, Divergence, divergence
from .preference import (
    Pair,
    PreferenceLoss,
    dpo_loss,
    f_dpo_loss,
    implicit_rewards,
    log_ratios,
    rpo_loss,
    sequence_logps,
)

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "Pair",
    "PreferenceLoss",
    "divergence",
    "dpo_loss",
    "f_dpo_loss",
    "implicit_rewards",
    "log_ratios",
    "rpo_loss",
    "sequence_logps",
]
