"""Names settings of a recipe that nothing reads: libraries take them, and do the same without them."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import nn
from transformers import Trainer

from align.findings import Finding, printable
from align.recipe.loading import Recipe

NO_EFFECT = "no-effect"
PROBES = ("0.77", "7", "True", "False", "x")
"""Values of which one at least makes another optimizer, where a setting is read at all."""


class Needs(NamedTuple):
    """Settings that are read only under a condition."""

    section: str
    names: tuple[str, ...]
    read: Callable[[Recipe], Any]
    unless: str
    """What would have them read."""


def _looks_for_best(recipe: Recipe) -> bool:
    args = recipe.train
    plateau = args.lr_scheduler_type.value == "reduce_lr_on_plateau"
    return args.load_best_model_at_end or args.save_strategy.value == "best" or plateau


CONDITIONS = (
    Needs("model", ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"),
          lambda r: r.model.load_in_4bit, "model.load_in_4bit is true"),
    Needs("train", ("gradient_checkpointing_kwargs",), lambda r: r.train.gradient_checkpointing,
          "train.gradient_checkpointing is true"),
    Needs("train", ("lr_scheduler_kwargs",),
          lambda r: r.train.lr_scheduler_type.value not in ("constant", "constant_with_warmup"),
          "train.lr_scheduler_type has settings of its own"),
    Needs("train", ("warmup_steps",), lambda r: r.train.lr_scheduler_type.value != "constant",
          "train.lr_scheduler_type warms up (constant_with_warmup does)"),
    Needs("train", ("eval_steps",), lambda r: r.train.eval_strategy.value == "steps", "train.eval_strategy is steps"),
    Needs("train", ("eval_delay", "eval_on_start"), lambda r: r.train.eval_strategy.value != "no",
          "train.eval_strategy is steps or epoch"),
    Needs("train", ("save_total_limit", "save_only_model"), lambda r: r.train.save_strategy.value != "no",
          "train.save_strategy is steps or epoch"),
    Needs("train", ("metric_for_best_model", "greater_is_better"), _looks_for_best,
          "train.load_best_model_at_end is true"),
    Needs("train", ("liger_kernel_config",), lambda r: r.train.use_liger_kernel, "train.use_liger_kernel is true"),
    Needs("train", ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
          lambda r: r.train.push_to_hub, "train.push_to_hub is true"),
)  # fmt: skip


def inspect_unread(recipe: Recipe) -> list[Finding]:
    """Settings that the recipe names, and that change nothing beside the others."""
    found = []
    for section, names, read, unless in CONDITIONS:
        given = recipe.raw.get(section)
        said = [name for name in names if isinstance(given, dict) and given.get(name) not in (None, False)]
        if said and not read(recipe):
            found += [_finding(f"{section}.{name}", f"nothing reads it unless {unless}") for name in said]
    return [*found, *(_finding(*each) for each in _of_optimizer(recipe))]


def _finding(where: str, message: str) -> Finding:
    return Finding("warning", NO_EFFECT, where, message, "leave it out, or say what it is for")


def _of_optimizer(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Settings of the optimizer for which it is made alike whatever they are."""
    args: Any = recipe.train
    given = recipe.raw.get("train")
    named = given if isinstance(given, dict) else {}
    message = f"{args.optim.value} does not read it"
    for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
        if name in named and not _differs(args, [{name: 0.77}, {name: 0.123}]):
            yield f"train.{name}", message
    parts = str(args.optim_args or "").replace(" ", "").split(",")
    for key in (part.partition("=")[0] for part in parts if "=" in part):
        others = [part for part in parts if part.partition("=")[0] != key]
        tried = [{"optim_args": ",".join([*others, f"{key}={value}"])} for value in PROBES]
        if not _differs(args, [*tried, {"optim_args": ",".join(others) or None}]):
            yield "train.optim_args", f"{printable(key)}: {message}"


def _differs(args: Any, changes: list[dict[str, Any]]) -> bool:
    """Whether one of some changes makes another optimizer; one that cannot be made is another."""
    made = []
    for change in ({}, *changes):
        try:
            now: Any = SimpleNamespace(**vars(args) | change)
            model: Any = nn.Linear(2, 2)
            made.append(str(Trainer.get_optimizer_cls_and_kwargs(now, model)))
        except Exception as error:  # a value that it refuses was read
            if not made:  # as it is: what is read cannot be told
                return True
            made.append(type(error).__name__)
    return len(set(made)) > 1
