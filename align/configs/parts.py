"""Declares which weights a run moves, and the rates of LoRA's factors."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

PARTS = ("all", "half", "layers", "b")
DRAWN_LAYERS = 2
OWN_STEPS = ("lomo", "layerwise", "schedule_free", "galore", "apollo")
"""Optimizers that step within backward, keep weights beside the model's, or make groups of parameters of their own."""


@dataclass
class PartConfig:
    """Which weights move. See `align.tuning`."""

    trained_part: Literal["all", "half", "layers", "b"] = field(
        default="all",
        metadata={
            "help": "What moves: all; 'half' of the modules of each layer (HFT); 'drawn_layers' layers and what lies outside "
            "of layers (LISA); or 'b', LoRA's second factor, A staying as drawn. With an adapter, modules and layers are its."
        },
    )
    redraw_every: int | None = field(
        default=None,
        metadata={
            "help": "Optimizer steps after which half or layers are drawn anew, from seed and step. Without it a half is drawn "
            "once; a list of seeds gives each of several rounds its own."
        },
    )
    drawn_layers: int | None = field(
        default=None, metadata={"help": "How many layers trained_part='layers' draws; by default 2."}
    )
    loraplus_lr_ratio: float | None = field(
        default=None, metadata={"help": "LoRA+: how many times `learning_rate`, which is A's, the rate of LoRA's B is."}
    )


def moves_a_part(config: Any) -> list[str]:
    """Names of the settings by which not all weights move, or not at one rate."""
    given = {"trained_part": config.trained_part != "all", "loraplus_lr_ratio": config.loraplus_lr_ratio is not None}
    return [name for name, used in given.items() if used]


def part_problems(config: Any) -> list[str]:
    """What cannot be meant, one line each, the field's name first."""
    part, every, found = config.trained_part, config.redraw_every, []
    if part not in PARTS:
        return [f"trained_part: must be one of {', '.join(PARTS)}, got {part!r}"]
    if every is not None and part not in ("half", "layers"):
        found.append(f"redraw_every: trained_part {part!r} draws nothing; leave it out")
    if every is None and part == "layers":
        found.append(
            "redraw_every: missing; without it trained_part 'layers' would train the same few layers to the end"
        )
    if config.drawn_layers is not None and part != "layers":
        found.append(f"drawn_layers: trained_part {part!r} draws no layers; leave it out")
    ratio = config.loraplus_lr_ratio
    if ratio is not None and not 0 < ratio < math.inf:
        found.append(f"loraplus_lr_ratio: must be positive and finite, got {ratio}")
    optimizer = str(getattr(config.optim, "value", config.optim))
    named = moves_a_part(config)
    if named and any(kind in optimizer for kind in OWN_STEPS):
        found.append(f"{named[0]}: optim={optimizer} moves weights in a way of its own; use adamw_torch")
    if named and (config.deepspeed or config.fsdp):
        found.append(f"{named[0]}: not tried on sharded weights; leave deepspeed and fsdp out")
    return found


def not_weighed(config: Any, rule: str) -> list[str]:
    """The line that refuses a part beside a rule that reads gradients, which are those of all that is trained."""
    if config.trained_part == "all":
        return []
    return [
        f"trained_part: {rule} weighs by the gradients of all that is trained; use all, gram: advantages, or another rule"
    ]
