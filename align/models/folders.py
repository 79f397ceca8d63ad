"""Looks at what folders of models, tokenizers and adapters hold before anything is loaded from them, and has PEFT's settings in order.

Weights are safetensors only: a pickle can run code when it is opened. No file of a folder may name code to import,
download or run, and no list of files may lead out of its folder.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftType
from peft.utils import CONFIG_NAME
from safetensors import SafetensorError, safe_open
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from align.errors import RunError
from align.files import read_json, write_text
from align.findings import printable

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
GENERATION = "generation_config.json"
COUNTED, MOST = ("num_hidden_layers", "num_layers", "n_layer", "_layers", "experts"), 10_000
RANKS, RANK_TABLES, LARGEST_RANK = ("r", "lora_alpha"), ("rank_pattern", "alpha_pattern"), 10**6
SETS = ("target_modules", "exclude_modules")
"""What PEFT holds as sets, which have another order in each process."""
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def check_model_folder(folder: Path) -> None:
    """Refuse a model folder that would run code, or whose weights cannot be read.

    Raises:
        RunError: Naming the file, what is wrong with it, and what to do.
    """
    _check_kinds(folder)
    _check_config(folder / "config.json")
    if (folder / GENERATION).is_file():
        read_json(folder / GENERATION)  # transformers would do without what it cannot read: stop tokens, for one
    _check_weights(folder, "model")


def numbers_stored(folder: Path) -> int | None:
    """How many numbers the weights of a folder are; None if it holds no safetensors.

    Raises:
        RunError: If a file is damaged.
    """
    found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return sum(_numbers(path) for path in found) if found else None


def check_tokenizer_folder(folder: Path) -> None:
    """Refuse a folder whose tokenizer is code.

    Raises:
        RunError: Naming the file and what to do.
    """
    _check_kinds(folder)
    for name in ("config.json", "tokenizer_config.json"):
        _check_config(folder / name)


def check_adapter_folder(folder: Path) -> None:
    """Refuse an adapter folder that would run code, or whose weights cannot be read.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        RunError: Naming the file, what is wrong with it, and what to do.
    """
    _check_kinds(folder)
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no adapter_config.json there; name a folder written by PEFT")
    settings = read_json(path)
    if settings.get("megatron_config") is not None:
        raise RunError(f"{path}: it makes PEFT import {_shown(settings.get('megatron_core'))}; remove megatron_config")
    _check_weights(folder, "adapter_model")


def write_in_order(folder: Path) -> None:
    """Sort the names of modules in what PEFT wrote of an adapter, so that equal adapters are equal files. Other folders stay as they are."""
    path = folder / CONFIG_NAME
    if path.is_file():
        settings = read_json(path)
        ordered = {key: sorted(settings[key]) for key in SETS if isinstance(settings.get(key), list)}
        write_text(path, json.dumps(settings | ordered, indent=2, sort_keys=True))


def adapter_settings(path: str | Path) -> PeftConfig:
    """The settings of an adapter, of a folder that is looked at, or of a name on a hub.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        RunError: As `check_adapter_folder` does, or if PEFT cannot read the settings, or a rank or scale is no number.
    """
    if Path(path).exists():
        check_adapter_folder(Path(path))
    try:
        config = PeftConfig.from_pretrained(str(path))
    except OSError:
        raise
    except Exception as error:  # of what a stranger wrote PEFT makes errors of any kind
        reason = printable(str(error).strip().partition("\n")[0] or type(error).__name__, 200)
        raise RunError(
            f"{path}: adapter_config.json holds no settings of an adapter ({reason}); fetch it again"
        ) from None
    if config.is_prompt_learning:
        raise RunError(
            f"{path}: an adapter of prompts ({config.peft_type}), which no log-probability here reads; use LoRA"
        )
    for name in (*RANKS, *RANK_TABLES):
        value = getattr(config, name, None)
        table = value if name in RANK_TABLES else {"": value}
        if value == 0 and config.peft_type == PeftType.OFT:  # the size of its blocks says it
            continue
        if value is not None and not _is_table(table, whole=name.startswith("r")):
            raise RunError(f"{path}: adapter_config.json: {name} is {_shown(value)}, which is no rank or scale")
    return config


def _is_table(table: Any, *, whole: bool) -> bool:
    return isinstance(table, dict) and all(
        isinstance(key, str) and _is_rank(each, whole=whole) for key, each in table.items()
    )


def _is_rank(value: Any, *, whole: bool) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_RANK
    return number and (not whole or (isinstance(value, int) and value > 0))


def _check_config(path: Path) -> None:
    if not path.is_file():
        return
    settings = read_json(path)
    if settings.get("auto_map"):
        raise RunError(
            f"{path}: the model brings its own code (auto_map: {_shown(settings['auto_map'])}), which is never run here; "
            "use a model that transformers knows, or remove auto_map if transformers has its class"
        )
    for key, value in _pairs(settings):
        if key in KERNELS and any(mark in str(value) for mark in "/:|"):
            raise RunError(f"{path}: {key} names a kernel to download and run ({_shown(value)}); remove it")
        if any(part in key for part in COUNTED) and isinstance(value, int | float) and value > MOST:
            raise RunError(f"{path}: {_shown(key)} is {value:g}, and no model has more than {MOST}; fetch it again")
    packed = settings.get("quantization_config")
    if packed and not _is_known(packed):
        raise RunError(
            f"{path}: quantization_config is of no kind that transformers knows ({_shown(packed)}), and would be passed over; "
            "remove it, or update transformers"
        )
    weights = settings.get("transformers_weights")
    if weights is not None and not str(weights).endswith((".safetensors", ".safetensors.index.json")):
        raise RunError(f"{path}: transformers_weights names {_shown(weights)}, which is no safetensors file")


def _is_known(packed: Any) -> bool:
    if not isinstance(packed, dict):
        return False
    older = packed.get("load_in_4bit") or packed.get("load_in_8bit")  # bitsandbytes, before it said its name
    return packed.get("quant_method", "bitsandbytes_4bit" if older else None) in AUTO_QUANTIZATION_CONFIG_MAPPING


def _pairs(values: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield key, value
            yield from _pairs(value)
    elif isinstance(values, list):
        for value in values:
            yield from _pairs(value)


def _check_weights(folder: Path, stem: str) -> None:
    found = sorted(folder.glob("*.safetensors"))
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED and p.name not in NOT_WEIGHTS)
    if not found and pickled:
        raise RunError(
            f"{folder}: its weights are pickled ({printable(', '.join(pickled[:3]))}), and opening a pickle can run code; "
            "convert them where you trust them: save_pretrained writes safetensors"
        )
    if not found and not any(folder.glob("*.gguf")):
        raise FileNotFoundError(
            f"{folder}: no weights there ({stem}.safetensors); name a folder written by save_pretrained"
        )
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map")
        names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        if not names:
            raise RunError(f"{index}: damaged: no weight_map; fetch it again")
        for name in sorted(names):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise RunError(f"{index}: names {_shown(name)}, which is no safetensors file of its folder")
            if not (folder / name).is_file():
                raise RunError(f"{folder}: {_shown(name)} is missing; fetch it again")
    for path in found:
        _numbers(path)


def _numbers(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: cut short or damaged ({printable(str(error), 200)}); fetch it again") from None


def _check_kinds(folder: Path) -> None:
    """Refuse a folder with a pipe, a socket or a device in it: reading one may never end."""
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise RunError(f"{path}: no regular file; a model folder holds files only")


def _shown(value: Any) -> str:
    return printable(repr(value))
