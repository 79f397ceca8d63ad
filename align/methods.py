"""The methods a recipe can name: a trainer and where the method comes from (configurations: `align.configs`)."""

from typing import NamedTuple

from .trainers import DPOTrainer, FDPOTrainer, PreferenceTrainer, RPOTrainer


class Method(NamedTuple):
    """One entry of `METHODS`."""

    trainer: type[PreferenceTrainer]
    title: str
    arxiv: str


METHODS = {
    "dpo": Method(DPOTrainer, "Direct Preference Optimization (Rafailov et al. 2023)", "2305.18290"),
    "rpo": Method(RPOTrainer, "Regularized Preference Optimization (Liu et al. 2024)", "2405.16436"),
    "fdpo": Method(FDPOTrainer, "f-DPO (Wang et al. 2023)", "2309.16240"),
}
