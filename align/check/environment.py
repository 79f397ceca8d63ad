"""Finds what this machine and the installed packages make of a recipe, before any weight is loaded."""

import re
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.utils.versions import require_version

from align.configs.parts import moves_a_part
from align.findings import Finding, Level
from align.recipe.loading import Recipe

from .machine import PARALLEL, Machine

GPU_MISSING = "gpu-missing"
"""The one finding that keeps a recipe from this machine only: a warning where it is checked, an error where it trains."""


class Rule(NamedTuple):
    """One line of the table of what does not work together, or not here."""

    level: Level
    name: str
    where: str
    breaks: Callable[[Recipe, Machine], Any]
    """True if the rule is broken, or what its message has braces for."""
    message: str
    remedy: str


def _stored(recipe: Recipe) -> bool:
    return recipe.ref.kind == "cached" or recipe.train.stores_reference()


def _on_cpu(recipe: Recipe, machine: Machine) -> bool:
    return recipe.train.use_cpu or not machine.gpus


def _zero(machine: Machine) -> bool:
    return (machine.sharding or "").startswith("zero")


def _splits_weights(machine: Machine) -> bool:
    return machine.sharding in ("fsdp1", "fsdp2", "zero3")


def _part(recipe: Recipe) -> str | None:
    named = moves_a_part(recipe.train)
    return f"trained_part={recipe.train.trained_part}" if "trained_part" in named else next(iter(named), None)


def _needs_gpu(recipe: Recipe, machine: Machine) -> str | None:
    asked = [*recipe.set_aside, *["fp16"] * (recipe.train.fp16 and not recipe.train.use_cpu and not machine.gpus)]
    return ", ".join(f"train.{name}" for name in asked) or None


def _other_precision(recipe: Recipe, machine: Machine) -> str | None:
    """A precision of the launcher that is not the recipe's: transformers would take it where the recipe has none."""
    own = "fp16" if recipe.train.fp16 else "bf16" if recipe.train.bf16 or "bf16" in recipe.set_aside else "no"
    if machine.precision in (None, own):
        return None
    return f"the launcher says mixed_precision: {machine.precision}, and the recipe trains in {own}"


def _within_rows(recipe: Recipe, machine: Machine) -> str | None:
    """Context, sequence or tensor parallelism, from the launcher or the recipe."""
    own = recipe.train.parallelism_config
    given = {name: own.get(name) if isinstance(own, dict) else getattr(own, name, 1) for name in PARALLEL}
    asked = next((f"{name}={size}" for name, size in given.items() if (size or 1) != 1), None)
    deepspeed = recipe.train.deepspeed if isinstance(recipe.train.deepspeed, dict) else {}
    if str(deepspeed.get("sequence_parallel_size", 1)) != "1":
        asked = f"sequence_parallel_size={deepspeed['sequence_parallel_size']}"
    return machine.parallel or asked


TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Trackers whose package has their name."""


def _unreported(recipe: Recipe, machine: Machine) -> str | None:
    wanted = [name for name in recipe.train.report_to or [] if name != "none"]
    unknown = [name for name in wanted if name not in INTEGRATION_TO_CALLBACK]
    if unknown:
        return f"{unknown[0]!r} is no integration of transformers ({', '.join(sorted(INTEGRATION_TO_CALLBACK))})"
    there = {*get_available_reporting_integrations(), "kubeflow"} if wanted else set()
    there -= {"tensorboard"} if not machine.installed("tensorboard") else set()  # for tensorboardX writes nothing here
    missing = [name for name in wanted if name not in there]
    if missing and missing[0] in TRACKERS:
        return f"{missing[0]!r} is not installed: pip install {missing[0]}"
    return f"{missing[0]!r} is not installed or not set up" if missing else None


def _uneven(recipe: Recipe, machine: Machine) -> str | None:
    pairs, size = recipe.train.pairs_per_step(), recipe.train.per_device_train_batch_size
    if pairs is None or pairs % (size * machine.processes) == 0:
        return None
    return f"{pairs} is no multiple of {size} pairs on each of {machine.processes} processes"


RULES = (
    Rule("error", "bitsandbytes-missing", "model",
         lambda r, m: (r.model.load_in_4bit or r.model.load_in_8bit) and not m.installed("bitsandbytes"),
         "4-bit and 8-bit weights need bitsandbytes", "pip install 'alignkit[quant]'"),
    Rule("error", "bitsandbytes-missing", "train.optim",
         lambda r, m: re.search("bnb|8bit|paged", r.train.optim.value) and not m.installed("bitsandbytes"),
         "this optimizer needs bitsandbytes", "pip install 'alignkit[quant]', or use train.optim=adamw_torch"),
    Rule("error", "vllm-missing", "train.use_vllm",
         lambda r, m: getattr(r.train, "use_vllm", False) and not m.installed("vllm"),
         "TRL's trainers need the package vllm, in server mode too, for the client", "install vllm, or leave use_vllm out"),
    Rule("error", "vllm-on-cpu", "train.use_vllm", lambda r, m: getattr(r.train, "use_vllm", False) and _on_cpu(r, m),
         "TRL cannot hand a policy to vLLM here: a server gets it by NCCL, and vLLM's CPU kernels drop the weights it is written to",
         "leave use_vllm out, or train on a GPU"),
    Rule("error", "flash-attention-missing", "model.attn_implementation",
         lambda r, m: str(r.model.attn_implementation).startswith("flash_attention") and not m.installed("flash_attn"),
         "flash attention needs the package flash-attn", "leave it out: shared prompts need sdpa or eager anyway"),
    Rule("error", "liger-missing", "train.use_liger_kernel",
         lambda r, m: r.train.use_liger_kernel and not m.installed("liger_kernel"),
         "liger-kernel is not installed", "pip install liger-kernel, or set it to false"),
    Rule("error", "report-to", "train.report_to", _unreported, "{}",
         "or use train.report_to=none: metrics.jsonl is written anyway"),
    Rule("error", "fp16-on-cpu", "train.fp16", lambda r, m: r.train.fp16 and r.train.use_cpu,
         "accelerate ignores it on a CPU", "set it to false"),
    Rule("warning", GPU_MISSING, "environment", _needs_gpu,
         "{} needs a GPU that has it, and this machine has none; the rest was checked as it will be there",
         "train it on such a machine, or here with train.use_cpu=true train.bf16=false train.fp16=false"),
    Rule("error", "fp16-weights", "model.dtype",
         lambda r, m: r.train.fp16 and r.model.dtype == "float16" and not r.trains_adapter,
         "gradients of float16 weights cannot be unscaled",
         "use model.dtype=float32 with train.fp16, or bfloat16 with train.bf16"),
    Rule("warning", "bf16-unsupported", "model.dtype",
         lambda r, m: r.model.dtype == "bfloat16" and not m.bf16 and not _on_cpu(r, m),
         "this GPU has no bfloat16 and emulates it slowly", "use model.dtype=float32 with train.fp16=true"),
    Rule("error", "sync-ref-model", "train.sync_ref_model", lambda r, m: r.train.moves_reference() and r.trains_adapter,
         "with an adapter there is no second model to synchronise", "set it to false, or train all weights"),
    Rule("error", "sync-ref-model", "train.sync_ref_model",
         lambda r, m: r.rows == "pairs" and _stored(r) and r.train.sync_ref_model,
         "stored values of the reference go stale when it moves", "set it to false, or compute the reference online"),
    Rule("error", "ld-alpha-cached", "ref.kind",
         lambda r, m: r.ref.kind == "cached" and getattr(r.train, "ld_alpha", None) is not None,
         "train.ld_alpha needs the reference token by token, and the data have sums of it",
         "use base, adapter or model, or leave train.ld_alpha out"),
    Rule("error", "tdpo-cached", "ref.kind",
         lambda r, m: r.ref.kind == "cached" and r.method in ("tdpo1", "tdpo2"),
         "TDPO needs the reference's distribution at every token, and the data have sums of log-probabilities",
         "use base, adapter or model"),
    Rule("error", "8-bit-sharded", "model.load_in_8bit",
         lambda r, m: r.model.load_in_8bit and _splits_weights(m) and m.sharding,
         "8-bit weights cannot be sharded ({})",
         "use load_in_4bit with bnb_4bit_quant_storage=bfloat16, or --accelerate-config ddp"),
    Rule("warning", "qlora-sharded", "model.bnb_4bit_quant_storage",
         lambda r, m: r.model.load_in_4bit and _splits_weights(m) and r.model.bnb_4bit_quant_storage in (None, "uint8"),
         "4-bit weights stored as bytes are not sharded: every GPU holds all of them, or the start fails",
         "set it to the type the other weights have, such as bfloat16"),
    Rule("error", "deepspeed-missing", "environment", lambda r, m: _zero(m) and not m.installed("deepspeed"),
         "ZeRO needs DeepSpeed", "pip install 'alignkit[deepspeed]'"),
    Rule("error", "zero3-unsaved", "environment",
         lambda r, m: m.sharding == "zero3" and not r.trains_adapter and not m.gathers,
         "the launcher's zero3_save_16bit_model is false: training would end without a model",
         "set it to true, as --accelerate-config zero3 does"),
    Rule("error", "budget-with-deepspeed", "train.max_tokens_per_batch",
         lambda r, m: _zero(m) and getattr(r.train, "max_tokens_per_batch", None),
         "DeepSpeed would take an optimizer step after every part of a batch", "leave it out"),
    Rule("warning", "sharded-prompts", "train.shared_prefix",
         lambda r, m: _splits_weights(m) and getattr(r.train, "shared_prefix", "off") != "off",
         "shared prompts on sharded weights were run on two CPU processes only; the check of the first batch decides",
         "compare a few steps with train.shared_prefix=off"),
    Rule("error", "sharded-on-cpu", "environment", lambda r, m: m.sharding and _on_cpu(r, m),
         "weights or optimizer states would be sharded over GPUs, and none is used", "leave --accelerate-config out"),
    Rule("error", "part-sharded", "train", lambda r, m: m.sharding and _part(r),
         "{} was not tried on sharded weights", "leave it or --accelerate-config out, or use --accelerate-config ddp"),
    Rule("error", "processes", "environment",
         lambda r, m: m.asked if m.asked and m.asked > 1 and not m.launched else None,
         "accelerate launch was asked for {} processes and has started one, as it does on a CPU",
         "use `alignkit train --num-processes`, or torchrun -m align.train"),
    Rule("error", "precision", "environment", _other_precision, "{}",
         "say it in one place: set mixed_precision to 'no' there, and train.bf16 or train.fp16 in the recipe"),
    Rule("error", "parallelism", "environment", _within_rows,
         "{}: context, sequence and tensor parallelism have not been shown to train the same function here",
         "set it to 1; weights are sharded with --accelerate-config fsdp2 or zero3"),
    Rule("warning", "gpu-unused", "train.use_cpu", lambda r, m: r.train.use_cpu and len(m.gpus),
         "GPUs are visible and would not be used", "set it to false"),
    Rule("error", "global-batch-size", "train.global_batch_size", _uneven, "{}",
         "choose a multiple, or give `alignkit train --num-processes`"),
    Rule("note", "launcher", "environment", lambda r, m: len(m.gpus) if len(m.gpus) > 1 and not m.launched else None,
         "{} GPUs are visible, and `alignkit train` starts a process on each",
         "use it, accelerate launch or torchrun: one process with several GPUs is refused"),
)  # fmt: skip
"""What does not work together, or not here."""


def inspect_machine(recipe: Recipe, machine: Machine) -> list[Finding]:
    """Devices, precision, and combinations of settings that fail or are ignored later."""
    found = []
    for rule in RULES:
        broken = rule.breaks(recipe, machine)
        if broken:
            found.append(Finding(rule.level, rule.name, rule.where, rule.message.format(broken), rule.remedy))
    return found


def inspect_versions(requirements: Sequence[str] | None = None) -> list[Finding]:
    """Installed packages against the ranges this package was tested with, from its own metadata."""
    try:
        declared = metadata.requires("alignkit") or [] if requirements is None else requirements
    except metadata.PackageNotFoundError:
        message = "alignkit runs from its folder, so the versions it needs are not known"
        return [Finding("note", "versions", "environment", message, "pip install -e .")]
    found = []
    for requirement in declared:
        if ";" in requirement:  # an extra's, checked where it is used
            continue
        try:
            require_version(requirement)
        except (ImportError, metadata.PackageNotFoundError):
            name = re.split(r"[^\w.-]", requirement)[0]
            installed = metadata.version(name) if find_spec(name) else "none"
            message = f"{requirement} was tested, {installed} is installed"
            found.append(Finding("warning", "versions", "environment", message, f"pip install '{requirement}'"))
    return found
