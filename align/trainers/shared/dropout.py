"""Honours or refuses dropout of the policy, and never switches it off silently; a reference has none."""

import contextlib
import logging
from collections.abc import Iterator

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

logger = logging.getLogger(__name__)


def refuse_silent_dropout(config: PeftConfig | None, where: str) -> None:
    """Raise if `disable_dropout=True` would switch off a dropout of the adapter that the user asked for.

    Raises:
        ValueError: In that case, with all remedies.
    """
    for name, share in ({} if config is None else vars(config)).items():
        if name.endswith("_dropout") and name not in NOT_FOUND and share > 0:
            raise ValueError(
                f"{where}: {name}={share} would be switched off by disable_dropout=True; leave that out to have dropout in "
                f"the adapter only, set it to False to have the model's too, or set {name}=0"
            )


def only_adapter_dropout(model: nn.Module, *others: nn.Module | None) -> None:
    """Switch off what `disable_dropout` does, but for the adapter's own dropout, and say so if it has any."""
    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    parts = [part for layer in layers for name, part in layer.named_children() if name != "base_layer"]
    kept = {module for part in parts for module in part.modules() if isinstance(module, nn.Dropout)}
    for each in (model, *others):
        for module in each.modules() if each is not None else ():
            if isinstance(module, nn.Dropout) and module not in kept:
                module.p = 0
    if kept:
        share = max(module.p for module in kept)
        logger.warning("the adapter trains with its dropout (%g); dropout of the model itself is off", share)


NOT_FOUND = ("rank_dropout", "module_dropout", "encoder_dropout")
"""Fields of PEFT's configurations whose dropout is no module of a layer: `disable_dropout` does not reach it."""


@contextlib.contextmanager
def dropout_off(*models: nn.Module | None) -> Iterator[None]:
    """Every module in evaluation mode: the reference is deterministic even where the policy has dropout.

    Attention dropout is a function that reads its module's mode, so switching `nn.Dropout` off would not do.
    """
    active = [module for model in models if model is not None for module in model.modules() if module.training]
    for module in active:
        module.training = False
    try:
        yield
    finally:
        for module in active:
            module.training = True
