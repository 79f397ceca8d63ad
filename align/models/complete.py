"""Makes sure that what was loaded is all that the files hold: libraries take what fits, and are silent about the rest."""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from peft import PeftModel, load_peft_weights

from align.errors import RunError
from align.findings import printable

logger = logging.getLogger(__name__)

WRAPPED = re.compile(r"\.(default|modules_to_save|base_layer)\b")
"""Parts of names that PEFT has in a model, and not in a file."""


def check_model_complete(
    model: torch.nn.Module, found: Mapping[str, Collection[str]], path: str, new: tuple[str, ...] = ()
) -> None:
    """Refuse a model with weights that are missing, left over, or not finite.

    Left over in another part than the model has, as the vision tower of a model that reads text, they are only named.

    Args:
        model: As it was loaded.
        found: What transformers says of it (`output_loading_info`).
        path: What it was loaded from.
        new: Beginnings of names of weights that may be missing; they are random.

    Raises:
        RunError: Naming some of the weights.
    """
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(new))
    if missing:
        raise RunError(f"{path}: {_some(missing, 'missing, and would be random')}; fetch it again")
    known = {_without_numbers(name) for name, _ in model.named_parameters()}
    left = sorted(found["unexpected_keys"])
    cut = [name for name in left if _without_numbers(name) in known]
    if cut:
        raise RunError(
            f"{path}: {_some(cut, 'left over')}; config.json describes a smaller model than its files hold: restore it, or "
            "fetch the model again"
        )
    if left:
        logger.warning("%s: %s", path, _some(left, "left over, and no part of the model as it is loaded"))
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor.detach()).all():
            raise RunError(
                f"{path}: the weight {printable(name, 200)} holds values that are not finite; fetch it again"
            )


def check_adapter_complete(model: PeftModel, path: str | Path, adapter: str = "default") -> None:
    """Refuse an adapter of whose weights some have no place in the model.

    Raises:
        RunError: Naming some of them.
    """
    there = {WRAPPED.sub("", name.replace(f".{adapter}", ".default")) for name in model.state_dict()}
    left = sorted(name for name in load_peft_weights(str(path), device="cpu") if WRAPPED.sub("", name) not in there)
    if left:
        raise RunError(
            f"{path}: {_some(left, 'left over')}; the adapter is of another model: name the one it was trained on"
        )


def _some(names: list[str], what: str) -> str:
    verb = f"{len(names)} weights are" if len(names) > 1 else "1 weight is"
    return f"{verb} {what}: {printable(', '.join(names[:3]), 300)}{', ...' if len(names) > 3 else ''}"


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "#", name)
