"""Counts the steps a run takes, and refuses settings of batches, evaluations and checkpoints that do not fit them."""

import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from datasets import Dataset

from align.configs.online_preference import OnlinePreferenceConfig
from align.data.loading import TRAIN
from align.findings import Finding
from align.methods import METHODS
from align.recipe.loading import Recipe

HIGHEST_RATE = 1.0
ONE_PROMPT = "one-prompt"
_SIDES = ("chosen", "rejected")
NAMES: dict[str, list[str]] = {
    "pairs": ["rewards/accuracies", "rewards/margins", *(f"{what}/{side}" for what in ("rewards", "logps", "length") for side in _SIDES), "entropy", "mean_token_accuracy"],
    "labels": ["rewards/margins", *(f"{what}/{side}" for what in ("rewards", "logps") for side in _SIDES), "length"],
    "completions": ["nll", "entropy", "mean_token_accuracy", "length"],
    "prompts": ["reward", "reward_std", "completions/mean_length", "completions/clipped_ratio", "entropy"],
    "online pairs": ["rewards/accuracies", "rewards/margins", "completions/mean_length", "kl"],
    "judge": ["accuracy", "margin", "probability"],
}  # fmt: skip
"""Metrics of an evaluation besides the loss, by the rows that a method learns from or, of other figures, its kind."""
PERHAPS = ("loss/", "log_ratio/", "logits/", "weight/", "completions/", "clip_ratio/", "pairs/", "tools/")
"""How metrics begin that some methods, data or settings log: none of them is taken for a misspelt one."""
BEST_METRIC = "best-metric"


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


def inspect_schedule(
    recipe: Recipe, planned: Plan, evals: Collection[str], *, rows: int, processes: int
) -> list[Finding]:
    """Settings of batches, evaluation, warm-up and checkpoints that do not fit rows, steps or evaluation sets.

    Args:
        recipe: The recipe.
        planned: Its steps.
        evals: Names of evaluation sets.
        rows: Rows of training.
        processes: Processes that share them.
    """
    args: Any = recipe.train
    steps, evaluates = planned.steps, args.eval_strategy.value != "no"
    found = _batches(recipe, rows, processes)
    if args.learning_rate > HIGHEST_RATE:
        message = f"{args.learning_rate:g}: no optimizer of these trains anything at such a rate"
        found.append(Finding("error", "learning-rate", "train.learning_rate", message, "LoRA wants about 1e-5 to 1e-4"))
    if evaluates and not evals:
        message = f"{args.eval_strategy.value!r}, and there is no evaluation set"
        remedy = "add data.eval or data.holdout, or set it to 'no'"
        found.append(Finding("error", "eval-without-sets", "train.eval_strategy", message, remedy))
    if not evaluates and (args.load_best_model_at_end or args.save_strategy.value == "best"):
        message = "the best checkpoint is asked for, and nothing is evaluated"
        remedy = "set it to 'steps' or 'epoch'"
        found.append(Finding("error", "best-without-eval", "train.eval_strategy", message, remedy))
    best = args.load_best_model_at_end or args.save_strategy.value == "best"
    metric = (args.metric_for_best_model or ("loss" if best else "")).removeprefix("eval_")
    if evaluates and evals and metric:
        found += _best(recipe, metric, evals)
    if args.max_steps == 0 or args.max_steps < -1:
        taken = "one step" if args.max_steps == 0 else "no limit"
        message = f"{args.max_steps} is {taken} for the Trainer, and -1 as many steps as the epochs have"
        found.append(Finding("error", "max-steps", "train.max_steps", message, "set it to -1, or leave it out"))
    found += _rhythms(args, steps)
    warmup = args.get_warmup_steps(steps)
    if warmup > steps:
        message = f"{warmup} steps of warm-up, and the run has {steps}: the learning rate never reaches its value"
        found.append(Finding("error", "warmup", "train.warmup_steps", message, "lower it, or give a share below 1"))
    alone = getattr(args, "critic_warmup", 0)
    if alone >= steps:
        message = f"{alone} steps train the value head alone, and the run has {steps}: the policy never learns"
        found.append(Finding("error", "critic-warmup", "train.critic_warmup", message, "lower it"))
    return found


def inspect_held_out(sets: Mapping[str, Dataset]) -> list[Finding]:
    """Evaluation sets of one prompt, which training evaluates and `alignkit eval` refuses."""
    found = []
    for name, rows in sets.items():
        prompts = iter(rows["prompt"] if name != TRAIN and "prompt" in rows.column_names else ())
        first = next(prompts, None)
        if first is not None and all(prompt == first for prompt in prompts):
            message = f"{len(rows)} row{'s' * (len(rows) > 1)} of one prompt, of which no figure has an interval: `alignkit eval` refuses the set"
            found.append(Finding("warning", ONE_PROMPT, name, message, "give it rows of two prompts or more"))
    return found


def logged_names(recipe: Recipe) -> list[str]:
    """Metrics that every evaluation of such a method logs, after the name of its set; `loss` is the first."""
    family = "judge" if METHODS[recipe.method].model == "preference" else recipe.rows
    family = "online pairs" if isinstance(recipe.train, OnlinePreferenceConfig) else family
    own = [f"rewards/{name}/mean" for name in recipe.rewards or () if family == "prompts"]
    return ["loss", *NAMES[family], *own]


def _best(recipe: Recipe, metric: str, evals: Collection[str]) -> list[Finding]:
    """A metric that no evaluation logs would end the run at its first one."""
    names, where = logged_names(recipe), "train.metric_for_best_model"
    remedy = f"use {next(iter(evals))}_loss or {next(iter(evals))}_{names[1]}"
    of_set = [name for name in evals if metric.startswith(f"{name}_")]
    if not of_set:
        message = f"{metric!r} is never logged: metrics carry the name of their evaluation set"
        return [Finding("error", BEST_METRIC, where, message, remedy)]
    name = metric.removeprefix(f"{max(of_set, key=len)}_")
    if name in names:
        return []
    perhaps = name.startswith(PERHAPS) or name.endswith("/std")
    near = [] if perhaps else difflib.get_close_matches(name, names, 1, cutoff=0.85)
    if near:
        message = f"{metric!r} is never logged; did you mean {metric.removesuffix(name)}{near[0]}?"
        return [Finding("error", BEST_METRIC, where, message, remedy)]
    message = f"{metric!r} is no metric that {recipe.method} always logs; one that is never logged ends the run at its first evaluation"
    return [Finding("warning", BEST_METRIC, where, message, f"see that it is logged, or {remedy}")]


def _rhythms(args: Any, steps: int) -> list[Finding]:
    """Saving, evaluation and logging every so many steps, where that is no number, or begins after the run's end."""
    found = []
    for name in ("save", "eval", "logging"):
        every, where = getattr(args, f"{name}_steps"), f"train.{name}_steps"
        if getattr(args, f"{name}_strategy").value == "steps" and every is not None and not every > 0:
            message = f"{every:g} is no number of steps"
            remedy = f"set it to 1 or more, or train.{name}_strategy to 'no'"
            found.append(Finding("error", f"{name}-steps", where, message, remedy))
    if args.save_strategy.value == "steps" and args.save_steps > steps:
        message = (
            f"{args.save_steps:g}, and the run has {steps} steps: an interrupted run leaves nothing to resume from"
        )
        found.append(Finding("warning", "save-steps", "train.save_steps", message, "lower it"))
    if args.save_only_model and args.save_strategy.value != "no":
        message = "checkpoints hold weights alone: an interrupted run leaves nothing to resume from"
        found.append(Finding("warning", "save-only-model", "train.save_only_model", message, "set it to false"))
    if args.eval_strategy.value != "no" and args.eval_delay and args.eval_delay > _end(args, steps):
        message = f"{args.eval_delay:g}, and the run ends at {_end(args, steps):g}: it is never evaluated on the way"
        found.append(Finding("error", "eval-delay", "train.eval_delay", message, "lower it, or leave it out"))
    return found


def _end(args: Any, steps: int) -> float:
    """Where the run ends, in the unit of `eval_delay`: steps, or epochs if an evaluation follows each."""
    return args.num_train_epochs if args.eval_strategy.value == "epoch" and args.max_steps < 0 else steps


def _batches(recipe: Recipe, rows: int, processes: int) -> list[Finding]:
    """Too few rows for a batch that is never cut: the Trainer would take no step, and save what it was given."""
    args: Any = recipe.train
    if recipe.rows == "prompts" and recipe.rounds is None:
        each = args.per_device_train_batch_size * args.steps_per_generation * processes
        prompts = max(each // args.num_generations, 1)
        if rows >= prompts:
            return []
        message = (
            f"a generation batch takes {prompts} prompts ({each} completions, {args.num_generations} of each), and there are "
            f"{rows}: no step would be taken"
        )
        remedy = (
            "add prompts, or lower per_device_train_batch_size, gradient_accumulation_steps or steps_per_generation"
        )
        return [Finding("error", "batch-size", "train.generation_batch_size", message, remedy)]
    batch = args.per_device_train_batch_size * processes
    if not args.dataloader_drop_last or rows >= batch:
        return []
    message = (
        f"{rows} rows are fewer than one batch of {batch}, and a batch that is not full is dropped: no step is taken"
    )
    remedy = "lower per_device_train_batch_size, or set it to false"
    return [Finding("error", "batch-size", "train.dataloader_drop_last", message, remedy)]
