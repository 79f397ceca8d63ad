"""Reads the adapters that MEET holds beside the policy, one for each label."""

from typing import Any

from align.errors import RunError
from align.models.start import adapter_folder

from .adapters import Adapter, load_adapter_factors

CONTROLS = ("good_control", "bad_control")


def controls_of(args: Any) -> tuple[Adapter, ...]:
    """The good and the bad control that a configuration names, on the CPU.

    Raises:
        RunError: If one is not there, is damaged, or is no plain LoRA; or if they were not trained on the same base.
    """
    found = []
    for name in CONTROLS:
        try:
            found.append(load_adapter_factors(adapter_folder(getattr(args, name))))
        except RunError as error:
            raise RunError(f"train.{name}: {str(error).removeprefix('start.adapter: ')}") from None
    bases = [(control.reference or {}).get("digest") for control in found]
    if None not in bases and len(set(bases)) > 1:
        raise RunError(
            f"train.bad_control: {found[1].path}: of another base than {found[0].path}; train both on one model"
        )
    return tuple(found)
