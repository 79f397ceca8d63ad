"""Computes how large a run is, without loading weights: layers and parameters trained, bytes on disk."""

import copy
import math
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import TrainableTokensWrapper
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_utils import set_zero3_state
from transformers.pytorch_utils import Conv1D

from align.configs.parts import PartConfig
from align.findings import Finding, printable
from align.models.patterns import refuse_endless
from align.recipe.loading import Recipe
from align.tuning.trainer import part_of

from .schedule import Plan

FEW_LAYERS = 0.25  # share of linear layers under which an adapter is likely to miss what was meant
FULL = 0.5  # share of the free space beyond which a run's checkpoints are a warning
FURTHER = 1.5  # parameters for each number stored: heads that are made anew, and weights stored once and used twice
MODEL = "model.model_name_or_path"
SMALL = {"adafactor": 0.0, "sgd": 0.0}  # optimizers that keep next to nothing for a parameter


class Size(NamedTuple):
    """Parameters of a model, and linear layers, all and adapted."""

    parameters: int
    trainable: int
    layers: int
    adapted: int
    shapes: Mapping[str, tuple[int, ...]] = {}
    """Of the adapter's weights, by their names in its file."""


def inspect_adapter(
    config: PreTrainedConfig,
    lora: PeftConfig | None,
    *,
    stored: int | None = None,
    attention: str | None = None,
    train: PartConfig | None = None,
) -> tuple[list[Finding], Size | None]:
    """Which layers LoRA would adapt, found on a model without weights.

    Args:
        config: The model's configuration.
        lora: The adapter's, or None if all weights are trained.
        stored: Numbers in the model's files of weights, if they are known.
        attention: The implementation that the recipe names, if it does.
        train: Settings that may name a part of what is trained, which must then be there.
    """
    implementation = attention if attention in (None, "sdpa", "eager") or "flash" not in attention else "eager"
    try:
        # ZeRO-3 would spread weights over the processes, and there are none
        with torch.device("meta"), set_zero3_state():
            model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=implementation or "eager")
    except Exception as error:  # a configuration may hold anything
        message = f"no model can be made of its configuration: {printable(' '.join(str(error).split()), 200)}"
        return [Finding("error", "unreadable-model", MODEL, message, "fetch it again")], None
    parameters = sum(p.numel() for p in model.parameters())
    if stored is not None and parameters > stored * FURTHER:
        message = f"its configuration is of {parameters:,} parameters, and its files hold {stored:,} numbers"
        return [Finding("error", "unreadable-model", MODEL, message, "fetch it again")], None
    layers = set(_linear_layers(model))
    if lora is None:
        return _part_missing(model, train), Size(parameters, parameters, len(layers), 0)
    if not isinstance(lora, LoraConfig):
        return _of_another_kind(model, lora, parameters, layers, train)
    adapter = copy.deepcopy(lora)
    adapter.init_lora_weights, adapter.inference_mode = False, False  # others look at weights; saved ones are frozen
    names = (
        [adapter.target_modules] if isinstance(adapter.target_modules, str) else sorted(adapter.target_modules or ())
    )
    there = {
        "modules_to_save": [name for name, _ in model.named_modules()],
        "target_parameters": [name for name, _ in model.named_parameters()],
    }
    try:
        refuse_endless(adapter, there["modules_to_save"], "lora")
        adapted: Any = get_peft_model(model, adapter, low_cpu_mem_usage=True)
    except Exception as error:  # PEFT raises ValueError, TypeError, KeyError, re.error and others at what it is given
        message = printable(" ".join(str(error).split()) or repr(error), 200)
        return [Finding("error", "lora-coverage", "lora", message, _called(layers))], None
    hit = {name.removeprefix("base_model.model.") for name, m in adapted.named_modules() if isinstance(m, LoraLayer)}
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    shapes = {
        name.replace(".default.", ".").removesuffix(".default"): tuple(p.shape)
        for name, p in adapted.named_parameters()
    }
    size = Size(parameters, trainable, len(layers), len(layers & hit), shapes)
    found = _part_missing(adapted, train)
    rows = config.get_text_config().vocab_size
    beyond = [index for index in _token_indices(adapter) if not 0 <= index < rows]
    if beyond:
        message = f"token {beyond[0]}, and the model's embedding has {rows} rows"
        found.append(Finding("error", "token-indices", "lora.trainable_token_indices", message, "name tokens it has"))
    head = adapted.get_base_model().get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        message = "the output layer would get trained rows (it shares the embedding's weight, or is named), and it is its plain weight that training reads"
        remedy = "leave it out, or use a model whose embeddings are not tied"
        found.append(Finding("error", "lora-output-layer", "lora.trainable_token_indices", message, remedy))
    if isinstance(head, BaseTunerLayer):
        message = f"{lora.target_modules!r} adapts the output layer, whose plain weight is what training reads"
        remedy = "use all-linear, or leave lm_head out of the pattern"
        found.append(Finding("error", "lora-output-layer", "lora.target_modules", printable(message, 200), remedy))
    for setting, known in there.items():
        missed = [name for name in getattr(adapter, setting) or () if not _is_among(name, known)]
        if missed:
            message = f"the model has no {printable(', '.join(missed))}, and PEFT passes over such names silently"
            found.append(
                Finding("error", "lora-coverage", f"lora.{setting}", message, "mend the name, or leave it out")
            )
    found += [Finding("error", "lora-coverage", f"lora.{key}", *told) for key, told in _unmatched(adapter, there, hit)]
    unused = [] if isinstance(lora.target_modules, str) else [name for name in names if not _is_among(name, hit)]
    if unused:
        message = f"no layer is called {printable(', '.join(unused))}, and PEFT passes over such names silently"
        found.append(Finding("warning", "lora-coverage", "lora.target_modules", message, _called(layers)))
    few = size.adapted < FEW_LAYERS * size.layers
    message = (
        f"{size.adapted} of {size.layers} linear layers ({size.adapted / max(size.layers, 1):.0%}), "
        f"{trainable:,} of {parameters:,} parameters trainable"
    )
    remedy = "so few layers learn little: use target_modules: all-linear unless it is meant"
    found.append(
        Finding("warning" if few else "note", "lora-coverage", "lora", message, remedy if few else "nothing to do")
    )
    return found, size


def _of_another_kind(
    model: Any, settings: PeftConfig, parameters: int, layers: set[str], train: PartConfig | None
) -> tuple[list[Finding], Size | None]:
    """What `inspect_adapter` finds of an adapter that is not LoRA: how many layers and parameters."""
    adapter = copy.deepcopy(settings)
    adapter.inference_mode = False
    try:
        refuse_endless(adapter, [name for name, _ in model.named_modules()], "peft")
        with torch.device("meta"):
            adapted: Any = get_peft_model(model, adapter, low_cpu_mem_usage=True)
    except Exception as error:  # as for LoRA
        message = printable(" ".join(str(error).split()) or repr(error), 200)
        return [Finding("error", "peft-coverage", "peft", message, _called(layers))], None
    hit = {n.removeprefix("base_model.model.") for n, m in adapted.named_modules() if isinstance(m, BaseTunerLayer)}
    if isinstance(adapted.get_base_model().get_output_embeddings(), BaseTunerLayer):
        message = "the output layer would be adapted, whose plain weight is what training reads"
        return [Finding("error", "peft-coverage", "peft.target_modules", message, "leave lm_head out")], None
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    message = f"{len(hit)} modules, {trainable:,} of {parameters:,} parameters trainable"
    size = Size(parameters, trainable, len(layers), len(layers & hit))
    return [*_part_missing(adapted, train), Finding("note", "peft-coverage", "peft", message, "nothing to do")], size


def _part_missing(model: Any, train: PartConfig | None) -> list[Finding]:
    """The part that settings name and a model, with its adapter, does not have."""
    try:
        if train is not None:
            part_of(model, train, "train")
    except ValueError as error:
        at, message = str(error).removeprefix("train: ").split(": ", 1)
        message, _, remedy = message.partition("; ")
        return [Finding("error", "trained-part", f"train.{at}", message, remedy or "name a part that it has")]
    return []


def _unmatched(
    adapter: LoraConfig, there: Mapping[str, list[str]], hit: Collection[str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Settings that name layers of which none is adapted, or left out: PEFT passes over them silently."""
    remedy = "mend the name, or leave it out"
    for setting in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(adapter, setting):
            if not any(re.fullmatch(rf"(.*\.)?({pattern})", name) for name in hit):
                yield setting, (f"no adapted layer is called {printable(pattern)}", remedy)
    excluded = adapter.exclude_modules or ()
    if isinstance(excluded, str):
        missed = [] if any(re.fullmatch(excluded, name) for name in there["modules_to_save"]) else [excluded]
    else:
        missed = [name for name in excluded if not _is_among(name, there["modules_to_save"])]
    if missed:
        yield "exclude_modules", (f"the model has no {printable(', '.join(missed))}", remedy)
    layers = adapter.layers_to_transform
    for index in [layers] if isinstance(layers, int) else layers or ():
        if not any(f".{index}." in name for name in hit):
            yield "layers_to_transform", (f"no adapted layer is in block {index}", remedy)


def _token_indices(adapter: LoraConfig) -> list[int]:
    given = adapter.trainable_token_indices or []
    lists = given.values() if isinstance(given, dict) else [given]
    return [index for each in lists for index in each]


def _is_among(name: str, layers: Collection[str]) -> bool:
    return any(layer == name or layer.endswith(f".{name}") for layer in layers)


def _called(layers: Collection[str]) -> str:
    names = sorted({name.rpartition(".")[2] for name in layers})
    return f"the linear layers are called {', '.join(names)}; all-linear takes them all"


def _linear_layers(model: Any) -> list[str]:
    """Names of the layers LoRA can adapt, without the output layer; experts stored as one tensor count as one each."""
    head = model.get_output_embeddings()
    plain = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    owners = dict(model.named_modules())
    fused = [
        name
        for name, p in model.named_parameters()
        if p.dim() == 3 and not isinstance(owners[name.rpartition(".")[0]], nn.Conv1d)
    ]
    return plain + fused


def checkpoint_bytes(recipe: Recipe, size: Size, weights: torch.dtype | str | None) -> tuple[int, int]:
    """Bytes of a checkpoint and of the final model, from parameters and optimizer states alone.

    Args:
        recipe: The recipe.
        size: The model's.
        weights: What `dtype: auto` means for this model.
    """
    args: Any = recipe.train
    dtype = (weights or torch.float32) if recipe.model.dtype in ("auto", None) else str(recipe.model.dtype)
    width = (getattr(torch, dtype) if isinstance(dtype, str) else dtype).itemsize
    if recipe.trains_adapter:  # PEFT keeps adapters in float32, TRL those of quantised models in bfloat16
        width = 2 if recipe.model.load_in_4bit or recipe.model.load_in_8bit else 4
    name = args.optim.value
    states = next((n for key, n in SMALL.items() if key in name), 2.0 if "8bit" in name else 2.0 * width)
    model = size.trainable * width * (2 if recipe.ref.kind == "adapter" else 1)  # with the frozen copy
    return model + (0 if args.save_only_model else int(size.trainable * states)), size.trainable * width


def inspect_disk(
    recipe: Recipe, size: Size, planned: Plan, weights: torch.dtype | str | None = None, *, answers: int = 0
) -> Finding:
    """What checkpoints will take, and in rounds the answers, against what is free where they go."""
    args: Any = recipe.train
    every = {"steps": args.save_steps if args.save_steps >= 1 else math.ceil(args.save_steps * planned.steps)}
    every["epoch"] = every["best"] = planned.per_epoch
    interval = every.get(args.save_strategy.value)
    saves = math.ceil(planned.steps / interval) if interval else 0
    kept = saves if not args.save_total_limit else min(saves, args.save_total_limit + 1)  # one more while it is written
    checkpoint, final = checkpoint_bytes(recipe, size, weights)
    runs = 1 if recipe.rounds is None else recipe.rounds.count
    need = runs * (kept * checkpoint + final) + answers
    folder = Path(str(args.output_dir)).absolute()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    message = (
        f"{kept} checkpoint{'s' * (kept != 1)} of {_bytes(checkpoint)} and the result of {_bytes(final)}; "
        + (f"in each of {runs} rounds, and answers of {_bytes(answers)}; " if recipe.rounds is not None else "")
        + f"{_bytes(free)} are free"
    )
    level = "error" if need > free else "warning" if need > FULL * free else "note"
    remedy = "train.save_total_limit keeps fewer, train.save_only_model smaller ones"
    return Finding(level, "disk", "train.output_dir", message, remedy)


def _bytes(count: float) -> str:
    unit, name = next(((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if count >= u), (1e3, "kB"))
    return f"{count / unit:.3g} {name}"
