"""Counts the steps a run takes, and refuses settings of batches, evaluations and checkpoints that do not fit them."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

from align.findings import Finding
from align.recipe.loading import Recipe

HIGHEST_RATE = 1.0


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
    if evaluates and evals and metric and not metric.startswith(tuple(f"{name}_" for name in evals)):
        message = f"{metric!r} is never logged: metrics carry the name of their evaluation set"
        remedy = f"use {next(iter(evals))}_loss or {next(iter(evals))}_rewards/accuracies"
        found.append(Finding("error", "best-metric", "train.metric_for_best_model", message, remedy))
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
