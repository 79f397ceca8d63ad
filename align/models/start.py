"""Gives a policy the weights that training begins with, where these are not what it is held against.

A trainer settles its reference while it is constructed: the base without adapters, or a frozen copy of the adapter that the
policy has by then. The starting weights are put into the policy's own adapter afterwards, and nothing else changes.
"""

from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict

from align.errors import RunError
from align.files import read_json
from align.runs.checkpoints import MANIFEST, check
from align.runs.contents import REFERENCE_FILE, result_in

from .folders import adapter_settings

OF_A_FILE = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "runtime_config")
"""Settings that say where an adapter is from, or how it is used, and not what it is."""


def adapter_folder(path: str | Path) -> Path:
    """The adapter that a path means: the folder itself, or the `adapter/` of a run directory.

    Raises:
        RunError: If there is none.
    """
    folder, found = Path(path), result_in(path, "adapter")
    if found is not None:
        return found
    state = "no such folder" if not folder.is_dir() else "neither an adapter nor a finished run with adapter/ there"
    remedy = "; weights of a whole model are named by model.model_name_or_path" if (folder / "model").is_dir() else ""
    raise RunError(f"start.adapter: {folder}: {state}{remedy}")


def starting_config(folder: Path, ref: str | None = None) -> PeftConfig:
    """The settings of the adapter that training begins with.

    Args:
        folder: From `adapter_folder`.
        ref: The reference's adapter, if it is one; both must be of one shape, for they are one kind of layers in one model.

    Raises:
        RunError: If the folder would run code, is damaged or is not as its run wrote it, or the reference's adapter has
            another shape.
        OSError: If the reference's adapter is not there.
    """
    config = adapter_settings(folder)
    made_by(folder)
    if ref is not None:
        ours, theirs = (_shape(one) for one in (config, adapter_settings(ref)))
        other = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if other:
            told = "; ".join(f"{name}: {ours.get(name)} here, {theirs.get(name)} there" for name in sorted(other)[:3])
            raise RunError(
                f"start.adapter: {folder}: another shape of adapter than the reference's, {ref} ({told}); begin with one of "
                "the same settings, or take a reference of ref.kind=model"
            )
    config.inference_mode = False
    return config


def made_by(folder: Path) -> dict[str, Any]:
    """Id and last step of the run that made an adapter; empty where no run of ours did.

    Raises:
        RunError: If it is not as its run wrote it.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    found = check(folder)
    return {"run": found["identity"].run, "step": found["step"]}


def trained_on_another(folder: Path, base_digest: str, where: str = "start.adapter") -> str | None:
    """What to say of an adapter that was trained on other weights than it is put on; None if none are known to be other."""
    path = folder / REFERENCE_FILE
    known = read_json(path) if path.is_file() else {}
    if known.get("kind") not in ("base", "adapter") or known.get("digest") in (None, base_digest):
        return None
    return (
        f"{where}: {folder}: it was trained on {known.get('model')}, whose weights are not those of the model here: "
        "another model, revision or model.dtype; begin with one of this model, unless that is what is meant"
    )


def begin_with(model: PeftModel, folder: Path) -> None:
    """Put an adapter's weights into the policy's own.

    Raises:
        RunError: If they do not fit it.
    """
    try:
        found: Any = set_peft_model_state_dict(
            model, load_peft_weights(str(folder), device="cpu"), adapter_name="default"
        )
    except RuntimeError as error:
        raise RunError(f"start.adapter: {folder}: does not fit the model ({str(error).splitlines()[0]})") from error
    missing = [name for name in found.missing_keys if ".default." in name]
    if missing or found.unexpected_keys:
        named = (missing or list(found.unexpected_keys))[0]
        raise RunError(f"start.adapter: {folder}: its weights are not those of the policy's adapter (first: {named})")


def _shape(config: PeftConfig) -> dict[str, Any]:
    values = {name: value for name, value in config.to_dict().items() if name not in OF_A_FILE}
    return {name: sorted(value) if isinstance(value, set | list) else value for name, value in values.items()}
