"""Holds the adapter of a checkpoint against the one that a recipe makes, by shapes alone."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from align.findings import Finding, printable

from .sizes import Size

WEIGHTS = "adapter_model.safetensors"
SHOWN = 3


def inspect_checkpoint(checkpoint: Path, size: Size) -> list[Finding]:
    """Weights of a checkpoint's adapter that are not those which the recipe trains.

    Args:
        checkpoint: Its folder; one without an adapter is left to whoever loads it.
        size: Of the run, with the shapes of its adapter's weights.
    """
    path = checkpoint / WEIGHTS
    if not path.is_file() or not size.shapes:
        return []
    try:
        with safe_open(path, framework="pt") as file:
            saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        message = f"{path}: cut short or damaged ({printable(str(error), 200)})"
        return [Finding("error", "checkpoint", "--resume", message, "use another checkpoint, or --resume auto")]
    wanted = {name: shape for name, shape in size.shapes.items() if "lora_" in name}
    have = {name: shape for name, shape in saved.items() if "lora_" in name}
    if wanted == have:
        return []
    name = sorted(set(wanted.items()) ^ set(have.items()))[0][0]
    message = (
        f"{checkpoint}: its adapter is not the recipe's: {printable(name, 200)} has shape {have.get(name, 'none')}, "
        f"{wanted.get(name, 'none')} is asked for"
    )
    remedy = "restore lora.r, lora.target_modules and the model, or begin in another train.output_dir"
    return [Finding("error", "checkpoint", "--resume", message, remedy)]
