"""Describes the machine that a run starts on, and what a launcher says of it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml

from align.errors import RunError
from align.findings import printable
from align.recipe.shipped import recipes_dir

PARALLEL = ("cp_size", "sp_size", "tp_size")


@dataclass(frozen=True)
class Machine:
    """What a run would start on. `sharding` is what the launcher's configuration asks for, if one is known."""

    gpus: tuple[str, ...] = ()
    bf16: bool = True
    launched: int | None = None
    sharding: str | None = None
    precision: str | None = None
    """What the launcher says of mixed precision, if it says anything but `no`."""
    parallel: str | None = None
    """Parallelism within a row or a layer that the launcher asks for, such as `cp_size=2`."""
    gathers: bool = False
    """Whether ZeRO-3 writes a whole model, and not the parts of each process."""
    asked: int | None = None
    """Processes that `accelerate launch` was asked for by the words it was called with."""
    installed: Callable[[str], bool] = lambda name: find_spec(name) is not None

    @classmethod
    def here(cls, accelerate_config: Path | None = None) -> "Machine":
        """This machine, inside a launcher or not."""
        settings = None if accelerate_config is None else _settings(accelerate_config)
        gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        world = os.environ.get("WORLD_SIZE")
        return cls(
            gpus=gpus,
            bf16=not gpus or torch.cuda.is_bf16_supported(including_emulation=False),
            launched=int(world) if world else None,
            sharding=_sharding(settings),
            precision=_precision(settings),
            parallel=_parallel(settings),
            gathers=_gathers(settings),
            asked=None if world else asked_processes(_words_of_parent()),
        )

    @property
    def processes(self) -> int:
        """How many `alignkit train` would start."""
        return self.launched or max(1, len(self.gpus))


def accelerate_file(name: str) -> Path:
    """An accelerate configuration: a file, or the name of a shipped one.

    Raises:
        RunError: If there is neither.
    """
    path = Path(name)
    path = path if path.is_file() else recipes_dir() / "accelerate" / f"{name}.yaml"
    if not path.is_file():
        raise RunError(f"--accelerate-config: no such file or shipped configuration: {name}")
    return path


def _sharding(settings: Mapping[str, Any] | None) -> str | None:
    """`fsdp1`, `fsdp2`, `zero1` to `zero3`, or None; from what a file says, else from what accelerate's launcher sets."""
    if settings is not None:
        kind = settings.get("distributed_type")
        version = (settings.get("fsdp_config") or {}).get("fsdp_version", 1)
        stage = (settings.get("deepspeed_config") or {}).get("zero_stage", 2)
    else:
        on = [kind for kind in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true"]
        kind = on[0] if on else None
        version = os.environ.get("FSDP_VERSION", "1")
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    return {"FSDP": f"fsdp{version}", "DEEPSPEED": f"zero{stage}"}.get(str(kind))


def _settings(accelerate_config: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(accelerate_config.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise RunError(f"--accelerate-config: {accelerate_config}: not valid YAML: {reason}") from None
    if not isinstance(settings, dict):
        raise RunError(f"--accelerate-config: {accelerate_config}: expected `key: value` lines")
    return settings


def _precision(settings: Mapping[str, Any] | None) -> str | None:
    said = settings.get("mixed_precision") if settings is not None else os.environ.get("ACCELERATE_MIXED_PRECISION")
    return None if said in (None, False, "no", "") else str(said)  # YAML reads an unquoted no as false


def _gathers(settings: Mapping[str, Any] | None) -> bool:
    said = (
        os.environ.get("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL")
        if settings is None
        else (settings.get("deepspeed_config") or {}).get("zero3_save_16bit_model")
    )
    return str(said).lower() in ("true", "1", "yes")


def _parallel(settings: Mapping[str, Any] | None) -> str | None:
    if settings is not None:
        given = settings.get("parallelism_config") or {}
        sizes = {name: given.get(f"parallelism_config_{name}") for name in PARALLEL}
        sizes["tp_size"] = sizes["tp_size"] or (settings.get("tp_config") or {}).get("tp_size")
    else:
        sizes = {name: os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}") for name in PARALLEL}
    return next((f"{name}={size}" for name, size in sizes.items() if str(size or 1) != "1"), None)


def _words_of_parent() -> list[str]:
    try:
        return Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # not Linux
        return []


def asked_processes(words: Sequence[str]) -> int | None:
    """How many processes a command line of `accelerate launch` asks for; None for other commands, or if it does not say.

    On CPUs it starts a single one whatever it is asked for, and sets nothing that would tell.
    """
    if not any("accelerate" in Path(word).name or word.startswith("accelerate.") for word in words[:4]):
        return None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        value = value if equals else words[index + 1] if index + 1 < len(words) else ""
        if name.replace("-", "_") == "__num_processes" and value.isdigit():
            return int(value)
    return None
