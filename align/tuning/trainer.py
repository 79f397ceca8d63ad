"""Has a trainer move the part of the weights that its settings name, at the rates that they name."""

from typing import Any

from align.configs.parts import DRAWN_LAYERS, moves_a_part

from .asked import AskedRates
from .kinds import refuse_kinds
from .parts import TrainedPart, take_away
from .rates import faster_b, second_factors


def part_of(model: Any, args: Any, where: str) -> TrainedPart | None:
    """What moves of a model by settings as in `align.configs.parts.PartConfig`; None if all of it does, at one rate or two.

    Raises:
        ValueError: If the model has no such part, or no LoRA factors for a rate of their own.
    """
    if args.loraplus_lr_ratio is not None:
        second_factors(model, where=where)
    if args.trained_part == "all":
        return None
    drawn = DRAWN_LAYERS if args.drawn_layers is None else args.drawn_layers
    return TrainedPart(
        model, args.trained_part, seed=args.seed, redraw_every=args.redraw_every, drawn_layers=drawn, where=where
    )


class MovesPart:
    """A Trainer that reads `align.configs.parts.PartConfig`. Mixed in before the Trainer."""

    args: Any
    model: Any
    state: Any
    optimizer: Any
    lr_scheduler: Any
    add_callback: Any
    is_deepspeed_enabled: bool
    is_fsdp_enabled: bool
    part: TrainedPart | None = None
    """What moves, where that is not all."""

    def choose_part(self) -> None:
        """Settle what moves, once the model has its adapter.

        Raises:
            ValueError: If the model has no such part, its weights are sharded, or its adapter cannot be what it is called.
        """
        args, where = self.args, type(self).__name__
        refuse_kinds(getattr(self.model, "peft_config", {}).values(), where)
        if moves_a_part(args) and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise ValueError(f"{where}: trained_part, loraplus_lr_ratio: not tried on sharded weights; leave them out")
        self.part = part_of(self.model, args, where)
        self.asked = AskedRates()
        self.add_callback(self.asked)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's; what it is made with stays, whatever a checkpoint has."""
        fresh = self.lr_scheduler is None
        made = super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        if fresh:
            self.asked.note(optimizer or self.optimizer, made)
        return made

    def hold_back(self) -> None:
        """Take the gradients away of what the step that is due must not move."""
        if self.part is not None:
            take_away(self.model, self.part.left_out(self.state.global_step))

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, of the part that moves."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.hold_back()
        return loss

    def create_optimizer(self, model: Any = None) -> Any:
        """The Trainer's, with a rate of its own for LoRA's B where there is to be one.

        Raises:
            ValueError: If an optimizer is given beside it, or there is no B.
        """
        ratio, where = self.args.loraplus_lr_ratio, type(self).__name__
        if ratio is not None and self.optimizer is not None:
            raise ValueError(
                f"{where}: loraplus_lr_ratio: an optimizer is given, with rates of its own; leave one of them out"
            )
        made = super().create_optimizer(model)  # type: ignore[misc]
        if ratio is not None:
            faster_b(made, self.model, ratio, where=where)
        return made
