"""Says which kinds of PEFT adapter are trained here: those that were tried begin at the reference and resume to the bit."""

from collections.abc import Iterable
from typing import Any

TRIED = (
    "FOURIERFT", "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "RANDLORA", "ROAD", "VERA",
)  # fmt: skip
"""Kinds besides LoRA that pass `tests/tuning/test_kinds.py`."""
VIRTUAL = "puts virtual tokens before each row, so the first log-ratio is not 0, and neither shared prompts nor `alignkit eval` know them"
REFUSED = {
    "ADALORA": "allots ranks by running sums that no checkpoint keeps, after each step, which no trainer here does",
    **dict.fromkeys(
        ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE", "ADAPTION_PROMPT"), VIRTUAL
    ),
    **dict.fromkeys(("XLORA", "POLY"), "mixes adapters by the row as a whole"),
    "VBLORA": "begins away from the reference: its vectors are random and its logits too",
    **dict.fromkeys(("BOFT", "SHIRA"), "cannot be made without weights, so `check` could not count its layers"),
    "C3A": "begins away from the reference by default",
}  # fmt: skip
"""Kinds that cannot be, and why."""
SAME = ("ADALORA",)
"""Kinds that would train in Python without a word, and not be what they are called; others stop at the first step's look."""


def refuse_kinds(configs: Iterable[Any], where: str) -> None:
    """Raise if an adapter would be trained as something else than its kind.

    Raises:
        ValueError: With the reason.
    """
    for config in configs:
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if kind in SAME:
            raise ValueError(f"{where}: {kind} {REFUSED[kind]}; use LoRA")


def why_not(kind: str) -> str | None:
    """Why a recipe cannot name a kind of adapter; None if it can."""
    if kind in TRIED:
        return None
    if kind == "LORA":
        return "has a section of its own, `lora`"
    return REFUSED.get(kind) or f"was not tried here; tried are {', '.join(TRIED)}"
