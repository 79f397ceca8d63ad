"""How large a run is: layers and parameters trained, steps, bytes on disk; found without loading weights."""

import copy
import math
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from align.findings import Finding, printable
from align.recipe.loading import Recipe

FEW_LAYERS = 0.25  # share of linear layers under which an adapter is likely to miss what was meant
FULL = 0.5  # share of the free space beyond which a run's checkpoints are a warning
SMALL = {"adafactor": 0.0, "sgd": 0.0}  # optimizers that keep next to nothing for a parameter


class Size(NamedTuple):
    """Parameters of a model, and linear layers, all and adapted."""

    parameters: int
    trainable: int
    layers: int
    adapted: int


def inspect_adapter(config: PreTrainedConfig, lora: PeftConfig | None) -> tuple[list[Finding], Size | None]:
    """Which layers LoRA would adapt, found on a model without weights.

    Args:
        config: The model's configuration.
        lora: The adapter's, or None if all weights are trained.
    """
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    parameters = sum(p.numel() for p in model.parameters())
    layers = set(_linear_layers(model))
    if not isinstance(lora, LoraConfig):
        trainable = parameters if lora is None else 0
        return [], Size(parameters, trainable, len(layers), 0)
    adapter = copy.deepcopy(lora)
    adapter.init_lora_weights, adapter.inference_mode = False, False  # others look at weights; saved ones are frozen
    names = (
        [adapter.target_modules] if isinstance(adapter.target_modules, str) else sorted(adapter.target_modules or ())
    )
    try:
        adapted: Any = get_peft_model(model, adapter, low_cpu_mem_usage=True)
    except ValueError as error:
        message = printable(" ".join(str(error).split()), 200)
        return [Finding("error", "lora-coverage", "lora", message, _called(layers))], None
    hit = {name.removeprefix("base_model.model.") for name, m in adapted.named_modules() if isinstance(m, LoraLayer)}
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    size = Size(parameters, trainable, len(layers), len(layers & hit))
    found = []
    if isinstance(adapted.get_base_model().get_output_embeddings(), BaseTunerLayer):
        message = f"{lora.target_modules!r} adapts the output layer, whose plain weight is what training reads"
        remedy = "use all-linear, or leave lm_head out of the pattern"
        found.append(Finding("error", "lora-output-layer", "lora.target_modules", printable(message, 200), remedy))
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


class Plan(NamedTuple):
    """Optimizer steps, in all and in an epoch."""

    steps: int
    per_epoch: int


def plan(recipe: Recipe, rows: int, processes: int) -> Plan:
    """What the Trainer will do with so many rows on so many processes."""
    args = recipe.train
    size = args.per_device_train_batch_size * processes
    micro = args.gradient_accumulation_steps
    pairs = args.pairs_per_step()
    if pairs is not None:
        micro = max(pairs // size, 1)
    if recipe.rows == "prompts" and recipe.rounds is None:  # a batch is one of completions
        rows *= args.num_generations
    batches = rows // size if args.dataloader_drop_last else math.ceil(rows / size)
    per_epoch = max(math.ceil(batches / micro), 1)
    steps = max(args.max_steps, 1) if args.max_steps >= 0 else math.ceil(args.num_train_epochs * per_epoch)
    return Plan(steps, per_epoch)


def inspect_schedule(recipe: Recipe, planned: Plan, evals: Collection[str]) -> list[Finding]:
    """Settings of evaluation, warm-up and checkpoints that do not fit the steps or the evaluation sets."""
    args: Any = recipe.train
    steps, evaluates = planned.steps, args.eval_strategy.value != "no"
    found: list[Finding] = []
    if evaluates and not evals:
        message = f"{args.eval_strategy.value!r}, and there is no evaluation set"
        remedy = "add data.eval or data.holdout, or set it to 'no'"
        found.append(Finding("error", "eval-without-sets", "train.eval_strategy", message, remedy))
    if not evaluates and (args.load_best_model_at_end or args.save_strategy.value == "best"):
        message = "the best checkpoint is asked for, and nothing is evaluated"
        remedy = "set it to 'steps' or 'epoch'"
        found.append(Finding("error", "best-without-eval", "train.eval_strategy", message, remedy))
    metric = (args.metric_for_best_model or "").removeprefix("eval_")
    if evaluates and evals and metric and not metric.startswith(tuple(f"{name}_" for name in evals)):
        message = f"{metric!r} is never logged: metrics carry the name of their evaluation set"
        remedy = f"use {next(iter(evals))}_loss or {next(iter(evals))}_rewards/accuracies"
        found.append(Finding("error", "best-metric", "train.metric_for_best_model", message, remedy))
    if args.max_steps == 0:
        message = "0 is one step for the Trainer, not as many as the epochs have"
        found.append(Finding("error", "max-steps", "train.max_steps", message, "set it to -1, or leave it out"))
    warmup = args.get_warmup_steps(steps)
    if warmup > steps:
        message = f"{warmup} steps of warm-up, and the run has {steps}: the learning rate never reaches its value"
        found.append(Finding("error", "warmup", "train.warmup_steps", message, "lower it, or give a share below 1"))
    if args.save_strategy.value == "steps" and args.save_steps > steps:
        message = (
            f"{args.save_steps:g}, and the run has {steps} steps: an interrupted run leaves nothing to resume from"
        )
        found.append(Finding("warning", "save-steps", "train.save_steps", message, "lower it"))
    return found


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
