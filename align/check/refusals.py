"""Refuses, for `alignkit check` and training alike, what can be known of a run before a weight is loaded."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from datasets import Dataset

from align.data import load_data
from align.data.audit.labels import inspect_labels
from align.data.audit.templates import PLAIN
from align.data.loading import EVAL, TRAIN, Loaded, named_sets
from align.errors import RunError
from align.findings import Finding
from align.recipe.loading import Recipe
from align.runs.contents import RECIPE_FILE

from .checkpoint import inspect_checkpoint
from .environment import GPU_MISSING, inspect_machine
from .fronts import inspect_front
from .machine import Machine
from .model import Model, inspect_controls, read_model
from .rewards import inspect_evaluation, inspect_initial, inspect_rewards, inspect_tools
from .rounds import bytes_of_answers, check_all_rounds, inspect_rounds, pairs_of_round
from .schedule import BEST_METRIC, ONE_PROMPT, Plan, inspect_held_out, inspect_schedule, plan
from .sizes import Size, inspect_adapter, inspect_disk
from .templates import inspect_templates
from .tokens import inspect_ids, inspect_room
from .trials import inspect_settings
from .unread import NO_EFFECT, inspect_unread

logger = logging.getLogger(__name__)


class Looked(NamedTuple):
    """What was found, and what it was found from."""

    findings: list[Finding]
    planned: Plan
    model: Model | None
    """None if it cannot be read."""
    size: Size | None


def look(
    recipe: Recipe,
    sets: Mapping[str, Dataset],
    machine: Machine,
    *,
    allow: Collection[str] = (),
    checkpoint: Path | None = None,
) -> Looked:
    """Everything that is held against a run, by whoever looks.

    Args:
        recipe: The recipe.
        sets: Its normalised rows, `data.train` first, then `data.eval.NAME`.
        machine: Where it runs.
        allow: What was given with `--allow`.
        checkpoint: What it goes on from, if it does.

    Raises:
        DataError, RunError: If rounds cannot be made.
    """
    findings = (
        inspect_machine(recipe, machine) + inspect_rewards(recipe, sets, allow) + inspect_evaluation(recipe, allow)
    )
    if not any(finding.level == "error" for finding in findings):
        findings += inspect_initial(recipe, sets, allow)
    if recipe.rows == "labels":
        findings += inspect_labels(sets, weights=recipe.train.label_weights(), weighs=recipe.train.weighs_labels())
    rows, answers = len(sets[TRAIN]), 0
    read = Loaded(sets[TRAIN], {name.removeprefix(EVAL): rows for name, rows in sets.items() if name != TRAIN}, [])
    if recipe.rounds is not None:  # the rows are prompts, and what is learnt from is made of answers to them
        check_all_rounds(recipe, read)
        rows, answers = pairs_of_round(recipe, rows), bytes_of_answers(recipe, rows)
    planned = plan(recipe, rows, machine.processes)
    if recipe.rounds is not None:
        findings.append(inspect_rounds(recipe, len(sets[TRAIN]), planned.steps))
    if recipe.fronts is not None:
        findings.append(inspect_front(recipe, read, planned.steps, allow))
    evals = [name.removeprefix(EVAL) for name in sets if name != TRAIN]
    findings += inspect_schedule(recipe, planned, evals, rows=rows, processes=machine.processes)
    findings += inspect_held_out(sets) + inspect_settings(recipe, planned.steps) + inspect_unread(recipe)
    findings += inspect_controls(recipe)
    model = read_model(recipe)
    if isinstance(model, Finding):
        return Looked([*findings, model], planned, None, None)
    findings += inspect_templates(sets, model.tokenizer) + inspect_tools(recipe, sets, model.tokenizer)
    embedded = getattr(model.config.get_text_config(), "vocab_size", None)
    for name, dataset in sets.items():
        findings += inspect_ids(dataset, model.tokenizer, embedded, name)
    findings += inspect_room(sets[TRAIN], model.tokenizer, getattr(recipe.train, "max_length", None), TRAIN)
    found, size = inspect_adapter(
        model.config, model.adapter, stored=model.stored, attention=recipe.model.attn_implementation, train=recipe.train
    )
    findings += found
    if size is not None:
        findings.append(inspect_disk(recipe, size, planned, model.config.dtype, answers=answers))
        findings += inspect_checkpoint(checkpoint, size) if checkpoint is not None else []
    return Looked(findings, planned, model, size)


def refuse(
    recipe: Recipe,
    sets: Mapping[str, Dataset],
    machine: Machine,
    *,
    allow: Collection[str] = (),
    checkpoint: Path | None = None,
) -> None:
    """Stop before a weight is loaded if anything is known to be wrong with a run; the arguments are those of `look`.

    That plain text is trained on without the model's template is said, and no reason to stop; nor are settings without
    effect, held-out rows of one prompt, or a best checkpoint by a metric that may not be logged.

    Raises:
        RunError: With a line for each error.
    """
    found = look(recipe, sets, machine, allow=allow, checkpoint=checkpoint).findings
    wrong = [finding.line() for finding in found if finding.level == "error" or finding.rule == GPU_MISSING]
    if wrong:
        raise RunError("\n".join(wrong))
    for finding in found:
        if finding.rule in (PLAIN, NO_EFFECT, ONE_PROMPT, BEST_METRIC):
            logger.warning("%s", finding.line().partition(": ")[2])


def refuse_several(recipe: Recipe, *, resume: bool, allow: Collection[str] = ()) -> Loaded | None:
    """Before the first of several trainings, of rounds or of a front: what would refuse each of them.

    Args:
        recipe: With `rounds` or `fronts`.
        resume: Whether to go on in a run that is there; that one was let through when it began.
        allow: What was given with `--allow`.

    Returns:
        The rows, if they were read.

    Raises:
        DataError: If the rows cannot be used.
        RunError: With a line for each error.
    """
    if resume and (Path(str(recipe.train.output_dir)) / RECIPE_FILE).is_file():
        return None
    with PartialState().local_main_process_first():
        sets = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    refuse(recipe, named_sets(sets.train, sets.eval), Machine.here(), allow=allow)
    return sets
