"""Reads a recipe's model without its weights: configuration, tokenizer and adapter settings, from small files."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftConfig
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from trl import ModelConfig

from align.configs.supervised import MEETConfig
from align.errors import RunError
from align.files import cache_dir
from align.findings import Finding, printable
from align.merging.controls import controls_of
from align.models.adapters import without_reference
from align.models.dated import date_template
from align.models.folders import adapter_settings, check_model_folder, check_tokenizer_folder, numbers_stored
from align.models.loading import PACKAGE_PREFIX, another_model, package_folders, resolve_model_path
from align.models.start import adapter_folder, starting_config
from align.models.stopping import named_stop_ids
from align.models.templates import check_template
from align.recipe.loading import Recipe


class Model(NamedTuple):
    """What is known of a model without its weights."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    stops: tuple[int, ...]
    """Tokens at which its generation ends."""
    adapter: PeftConfig | None
    stored: int | None = None
    """Numbers in its files of weights; None if they are not here, or packed."""


def read_model(recipe: Recipe) -> Model | Finding:
    """Configuration, tokenizer and adapter of a recipe's model, or why training could not read them."""
    at, name = "model.model_name_or_path", str(recipe.model.model_name_or_path)
    try:
        path, how = _files(recipe.model)
        policy = path
        config = AutoConfig.from_pretrained(path, **how)
        tokenizer = AutoTokenizer.from_pretrained(path, **how)
        check_template(tokenizer)
        if "gguf_file" in how:
            config.dtype = torch.bfloat16  # what it is converted to
        stops = named_stop_ids(tokenizer, config, _generation(path, how))
        adapter = recipe.lora
        if recipe.start is not None:
            at, name = "start.adapter", recipe.start.adapter
            ref = recipe.ref.path if recipe.ref.kind == "adapter" else None
            adapter = starting_config(adapter_folder(name), ref)
        if recipe.ref.kind != "base":
            at, name = "ref.path", str(recipe.ref.path)
        if recipe.ref.kind == "adapter":
            other = adapter_settings(name)
            adapter = adapter or other
            for key, reason in without_reference(adapter, made=True):
                raise ValueError(f"{key}: {reason}")
        if recipe.ref.kind == "model":
            path, how = _files(another_model(recipe.model, name))
            other = AutoConfig.from_pretrained(path, **how)
            if other.get_text_config().vocab_size != config.get_text_config().vocab_size:
                raise ValueError("its vocabulary is not of the same size as the policy's")
    except Exception as error:  # files of strangers: the libraries that read them raise anything
        reason = printable(str(error).strip().partition("\n")[0] or repr(error), 200)
        remedy = "name a folder, a .gguf file, tiny-random, or a hub id that is in the cache or can be reached"
        return Finding("error", "unreadable-model", at, f"{printable(name)}: {reason}", remedy)
    packed = getattr(config, "quantization_config", None) is not None
    return Model(config, tokenizer, tuple(stops), adapter, None if packed else numbers_stored(Path(policy)))


def inspect_controls(recipe: Recipe) -> list[Finding]:
    """What is wrong with the adapters that are held beside the policy, where a method has some."""
    if not isinstance(recipe.train, MEETConfig):
        return []
    try:
        controls_of(recipe.train)
    except RunError as error:
        at, _, said = str(error).partition(": ")
        remedy = "train it first: a supervised run with an adapter, on rows of that label alone"
        return [Finding("error", "control", at, printable(said, 300), remedy)]
    return []


def dated_template(tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """What there is to say of a chat template that writes the date; it writes one date from here on."""
    at = "model.model_name_or_path"
    try:
        day = date_template(tokenizer)
    except RunError as error:
        reason, _, remedy = str(error).partition("; ")
        return [Finding("error", "dated-template", at, reason, remedy)]
    if day is None:
        return []
    message = (
        f"the chat template writes the date, today {day}: a run keeps the day it began, also when it resumes and is "
        "evaluated, and another run of the recipe has its own"
    )
    return [Finding("note", "dated-template", at, message, "write a date in the template to repeat a run to the bit")]


def _generation(path: str, how: dict[str, Any]) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(path, **how)
    except OSError:  # there is none
        return None


def _files(model: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Where a model's configuration and tokenizer are read from: a GGUF file itself, unless it has been converted."""
    name = str(model.model_name_or_path)
    gguf = _gguf(name)
    if gguf is not None:
        with gguf.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if not (cache_dir() / "models" / f"{gguf.stem}-{digest}").is_dir():
            return str(gguf.parent), {"gguf_file": gguf.name, "trust_remote_code": False}
    path = resolve_model_path(name)
    if Path(path).is_dir():
        check_model_folder(Path(path))
        check_tokenizer_folder(Path(path))
    return path, {"revision": model.model_revision, "trust_remote_code": False}


def _gguf(name: str) -> Path | None:
    """The GGUF file that a name means; None for other names, and for those that `resolve_model_path` refuses."""
    package, _, file = name.removeprefix(PACKAGE_PREFIX).partition("/")
    if not name.startswith(PACKAGE_PREFIX):
        return Path(name) if name.endswith(".gguf") and Path(name).is_file() else None
    folders = [] if "." in package or ".." in Path(file).parts else package_folders(package)
    found = [Path(folder, file) for folder in folders if Path(folder, file).is_file()]
    return found[0] if found else None
