"""Draws which weights move: half of the modules (HFT, arXiv:2404.18466), a few layers (LISA, arXiv:2403.17919), or B alone.

The draw is a function of seed and step and has no state, so every process and a run that resumes draw the same.
"""

import random
import re
from collections.abc import Iterable
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

LAYER = re.compile(r"\.(\d+)\.")
RANDOM_FACTORS = ("lora_A.", "lora_embedding_B.")
"""Factors of LoRA that begin random, in parameters' names: A, but for embeddings, whose A begins at 0."""


class TrainedPart:
    """The parameters of a model that no step may move, by step.

    Nothing is frozen by `requires_grad`, which PEFT sets back whenever adapters are switched: the trainer takes gradients
    away before they are clipped. So what is left out moves neither by weight decay nor by momentum, keeps its moments until
    it is drawn again, and costs as much time and memory as the rest; what the papers save of these is not saved.

    Args:
        model: With an adapter, whose modules are meant, or without.
        part: "half", "layers" or "b".
        seed: Of the draws.
        redraw_every: Optimizer steps after which is drawn anew; None draws once.
        drawn_layers: How many layers "layers" draws.
        where: What to call the trainer.

    Raises:
        ValueError: If the model has nothing to draw from.
    """

    def __init__(
        self, model: Any, part: str, *, seed: int, redraw_every: int | None, drawn_layers: int, where: str
    ) -> None:
        self.part, self.seed, self.redraw_every, self.drawn_layers = part, seed, redraw_every, drawn_layers
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._random = {name for name in trained if any(factor in name for factor in RANDOM_FACTORS)}
        self._vectors = {name for name, parameter in model.named_parameters() if parameter.dim() < 2}
        self._of = {name: unit for name in trained if (unit := _unit(name, model)) is not None}
        if part == "b" and not self._random:
            raise ValueError(f"{where}: trained_part: 'b' is a factor of LoRA, and no LoRA adapter is trained; give one, or "
                             "leave it out")  # fmt: skip
        if not self._of:
            raise ValueError(f"{where}: trained_part: {part!r} draws among numbered layers, and nothing that is trained lies "
                             "in one; leave it out")  # fmt: skip
        layers = self.layers()
        if part == "layers" and drawn_layers >= len(layers):
            raise ValueError(
                f"{where}: drawn_layers: must be below the model's {len(layers)} layers, got {drawn_layers}"
            )
        self._drawn: tuple[int, frozenset[str]] | None = None

    def layers(self) -> list[int]:
        """Numbers of the layers that have something to train."""
        return sorted({_layer(unit) for unit in self._of.values()})

    def left_out(self, step: int) -> frozenset[str]:
        """Names of the parameters that a step must not move; steps count from 0."""
        period = 0 if self.redraw_every is None else step // self.redraw_every
        if self._drawn is None or self._drawn[0] != period:
            self._drawn = period, frozenset(self._draw(period))
        return self._drawn[1]

    def _draw(self, period: int) -> Iterable[str]:
        if self.part == "b":
            return self._random
        draw = random.Random(f"{self.part}:{self.seed}:{period}")
        if self.part == "layers":
            kept = set(draw.sample(self.layers(), self.drawn_layers))
            return [name for name, unit in self._of.items() if _layer(unit) not in kept]
        units = dict.fromkeys(self._of.values(), False)
        units |= {unit: True for name, unit in self._of.items() if name in self._vectors and unit + ".weight" == name}
        frozen = left_out_half(draw, units)
        return [name for name, unit in self._of.items() if unit in frozen]


def left_out_half(draw: random.Random, units: dict[str, bool]) -> set[str]:
    """The modules that HFT leaves as they are: half of those with one parent, such as attention's four projections.

    Of an odd number, the larger half is left out in a random half of the parents (rounded down) and the smaller in the
    others: of three, two and one. Parents are alike if their names are, numbers aside. Halves are of modules: where their
    sizes differ, the share of parameters is one half only in the mean over draws.

    Args:
        draw: Gives the numbers.
        units: Dotted names of modules, and whether each is a norm, which is drawn among norms.
    """
    siblings: dict[tuple[str, bool], list[str]] = {}
    for name in sorted(units):
        siblings.setdefault((name.rpartition(".")[0], units[name]), []).append(name)
    alike: dict[tuple[str, bool, int], list[tuple[str, bool]]] = {}
    for (parent, is_norm), members in siblings.items():
        kind = ".".join(part for part in parent.split(".") if not part.isdigit())
        alike.setdefault((kind, is_norm, len(members)), []).append((parent, is_norm))
    frozen: set[str] = set()
    for (_, _, size), parents in alike.items():
        more = set(draw.sample(parents, len(parents) // 2)) if size % 2 else set()
        for parent in parents:
            frozen.update(draw.sample(siblings[parent], size // 2 + (parent in more)))
    return frozen


def take_away(model: nn.Module, names: frozenset[str]) -> None:
    """Drop the gradients of these parameters."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.grad = None


def _unit(name: str, model: nn.Module) -> str | None:
    """The module that a parameter is drawn with: the adapted one, or without adapters its own; None outside of layers."""
    unit = name.rpartition(".")[0]
    if isinstance(model, PeftModel):
        while unit and not isinstance(model.get_submodule(unit), BaseTunerLayer):
            unit = unit.rpartition(".")[0]
    return unit if LAYER.search(f"{unit}.") else None


def _layer(unit: str) -> int:
    found = LAYER.search(f"{unit}.")
    assert found is not None
    return int(found[1])
