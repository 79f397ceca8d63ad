"""The methods a recipe can name: configuration, trainer, rows, and where the method comes from."""

from importlib import import_module
from typing import Any, NamedTuple

from .configs import DPOConfig, FDPOConfig, RPOConfig
from .data import Rows


class Method(NamedTuple):
    """One entry of `METHODS`. A method may be a configuration with some fields given (`preset`)."""

    title: str
    arxiv: str | None
    config: type[Any]
    home: str
    """MODULE:CLASS of the trainer, below `align.trainers`; loaded when it is asked for."""
    rows: Rows = "pairs"
    preset: dict[str, Any] = {}  # noqa: RUF012 - of a NamedTuple, and never written to

    @property
    def trainer(self) -> Any:
        """The trainer's class."""
        module, _, name = self.home.partition(":")
        return getattr(import_module(f".trainers.{module}", __package__), name)


METHODS: dict[str, Method] = {
    "dpo": Method(
        "Direct Preference Optimization (Rafailov et al. 2023)", "2305.18290", DPOConfig, "preference:DPOTrainer"
    ),
    "rpo": Method(
        "Regularized Preference Optimization (Liu et al. 2024)", "2405.16436", RPOConfig, "preference:RPOTrainer"
    ),
    "fdpo": Method("f-DPO (Wang et al. 2023)", "2309.16240", FDPOConfig, "preference:FDPOTrainer"),
}
