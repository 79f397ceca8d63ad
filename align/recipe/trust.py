"""Refuses what a recipe may not say: reading one that comes from a stranger must not hand them the machine.

No recipe makes code of strangers run. A file, besides, neither writes outside of the working directory nor sends anything
anywhere; on the command line its user may ask for both.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.strict.yaml_tree import Tree, Where

RUNS_CODE = "a recipe cannot allow code from a model repository to run"
KERNELS = ("attn_implementation", "experts_implementation")
IMPORTS = ("megatron_config", "megatron_core", "auto_mapping")  # names of modules, which PEFT imports
UPLOADS = (
    "push_to_hub",
    "hub_model_id",
    "hub_revision",
    "trackio_space_id",
    "trackio_bucket_id",
    "trackio_static_space_id",
)


def check_trust(tree: Tree, folder: Path) -> None:
    """Note in `tree` every setting that a recipe, or a recipe that comes as a file, cannot have.

    Args:
        tree: The recipe, `extends` and overrides applied.
        folder: Where the recipe file lies; the one folder outside of the working directory that it may write to.
    """
    for where, value in _settings(tree.values, ()):
        if where[-1] == "trust_remote_code":
            tree.problem(where, f"not allowed in a recipe, got {value!r}; {RUNS_CODE}")
        if where[-1] in KERNELS and isinstance(value, str) and any(mark in value for mark in "/:|"):
            tree.problem(
                where, f"names a kernel to download and run, got {value!r}; use sdpa, eager or flash_attention_2"
            )
        if where[0] in ("lora", "peft") and where[-1] in IMPORTS:
            tree.problem(where, f"not allowed in a recipe, got {value!r}; it makes PEFT import a module by name")
    train = tree.get("train")
    for key, value in train.items() if isinstance(train, Mapping) else ():
        refused = _only_typed(key, value, folder)
        if refused and tree.is_from_file(("train", key)):
            tree.problem(
                ("train", key), f"{refused}, got {value!r}; if it is meant, say so on the command line: train.{key}=..."
            )


def as_a_file_may_say_it(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values without those that only the command line may give, to be written into a run directory."""
    train = values.get("train")
    if not isinstance(train, Mapping):
        return dict(values)
    kept = {key: value for key, value in train.items() if not _only_typed(key, value, None)}
    if "output_dir" in train and "output_dir" not in kept:
        kept = {key: "." if key == "output_dir" else kept[key] for key in train if key in kept or key == "output_dir"}
    return {**values, "train": kept}


def _settings(values: Any, where: Where) -> Iterator[tuple[Where, Any]]:
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        here = (*where, str(key))
        yield here, value
        if isinstance(value, Mapping | list):
            yield from _settings(value, here)


def _only_typed(key: str, value: Any, folder: Path | None) -> str | None:
    """Why a file may not say this about training, or None."""
    if key == "output_dir" and isinstance(value, str):
        home = value.startswith("~")  # TrainingArguments expands it
        outside = Path(value).is_absolute() or ".." in Path(value).parts
        own = folder is not None and os.path.realpath(value) == os.path.realpath(folder)
        if home or (outside and not own):
            return "a recipe file writes below the working directory only"
    if key in UPLOADS and value not in (None, False):
        return "a recipe file uploads nothing"
    return None
