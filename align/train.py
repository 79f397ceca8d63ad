"""Train from a recipe: `accelerate launch -m align.train RECIPE [section.key=value ...] [--resume auto]`."""

import argparse
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from peft import PeftModel
from transformers import set_seed

from align.check.machine import Machine
from align.check.refusals import EVAL, TRAIN, refuse
from align.errors import any_terminal, in_words, quiet_upstream
from align.models import loading as models
from align.models.preference_model import load_preference_base
from align.recipe.loading import Recipe, load_recipe
from align.runs.checkpoints import check, checkpoint_to_resume
from align.runs.directory import (
    ENV_FILE,
    RECIPE_FILE,
    REFERENCE_FILE,
    MetricsFile,
    claimed,
    data_digest,
    environment,
    recorded_reference,
)
from align.trainers.shared.safe_runs import StopOnSignal

from .data import load_data
from .errors import RunError
from .files import read_json, write_text
from .findings import printable
from .methods import METHODS
from .rewards import make_reward

logger = logging.getLogger(__name__)

SETTINGS_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    ArithmeticError,
    NotImplementedError,
)
STOPPED = 143  # 128 + SIGTERM, as a shell would say


class Run(NamedTuple):
    """A finished run: its directory, the trainer, and what `train` returned."""

    path: Path
    trainer: Any
    metrics: dict[str, float]


def run(
    recipe: Recipe | str | Path,
    overrides: Iterable[str] = (),
    *,
    resume: str | None = None,
    overwrite: bool = False,
    allow: Collection[str] = (),
) -> Run:
    """Train a recipe and write its run directory.

    Args:
        recipe: A loaded recipe, a path, or the name of a shipped one.
        overrides: `section.key=value` strings, for a path or a name.
        resume: "auto" for the last complete checkpoint in the run directory (or from the start, if there is none), or
            a checkpoint folder.
        overwrite: Delete a run that is already in the run directory.
        allow: Reward functions of the form MODULE:FUNCTION that may run; see `align.rewards.load_reward`.

    Raises:
        RecipeError: If the recipe cannot be run as written.
        DataError: If the data cannot be used.
        RunError: If the run directory is taken or being written by another process, the reference is not the one the
            run started with, or a checkpoint cannot be written.
        SystemExit: With 143, after a checkpoint, if the process got SIGTERM.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    path = Path(str(recipe.train.output_dir))
    checkpoint = checkpoint_to_resume(path, resume)
    with claimed(path, resume=resume is not None, overwrite=overwrite):
        return _run(recipe, path, checkpoint, allow)


def _run(recipe: Recipe, path: Path, checkpoint: Path | None, allow: Collection[str]) -> Run:
    set_seed(recipe.train.seed)
    with PartialState().local_main_process_first():
        data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    sets = {TRAIN: data.train, **{f"{EVAL}{name}": dataset for name, dataset in data.eval.items()}}
    refuse(recipe, sets, Machine.here(), allow=allow, checkpoint=checkpoint)
    try:
        trainer, ref = build_trainer(recipe, data.train, data.eval, allow=allow)
    except SETTINGS_ERRORS as error:  # what the libraries behind the trainer make of settings that nobody has foreseen
        if in_words(error) is not None:
            raise
        raise RunError(f"training cannot be set up: {type(error).__name__}: {error}") from error
    if checkpoint is not None:
        _same_reference(path, ref, checkpoint)
        logger.warning("resuming from %s", checkpoint)
    if trainer.is_world_process_zero():
        names = {"train": data.train, **data.eval}
        record = environment(
            ref=ref,
            data={name: data_digest(dataset) for name, dataset in names.items()},
            device=str(trainer.accelerator.device),
            processes=trainer.accelerator.num_processes,
        )
        write_text(path / RECIPE_FILE, recipe.resolved_yaml())
        write_text(path / ENV_FILE, json.dumps(record, indent=2) + "\n")
    stop = StopOnSignal()
    trainer.add_callback(stop)
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.asked:
        logger.warning(
            "stopped by SIGTERM after step %d, which is saved; go on with --resume auto", trainer.state.global_step
        )
        raise SystemExit(STOPPED)
    _save(trainer, recipe, path)
    return Run(path, trainer, result.metrics)


def build_trainer(
    recipe: Recipe, train: Any, eval_sets: dict[str, Any], *, allow: Collection[str] = ()
) -> tuple[Any, dict[str, Any]]:
    """The trainer of a recipe over loaded data, and the identity of its reference."""
    tokenizer = models.load_tokenizer(recipe.model)
    further: dict[str, Any] = {}
    if recipe.rows == "prompts":
        further["reward_funcs"] = [make_reward(name, allow, **options) for name, options in recipe.rewards.items()]
    method = METHODS[recipe.method]
    adapter = recipe.ref.path if recipe.ref.kind == "adapter" else None
    if method.model == "preference":
        policy = load_preference_base(recipe.model, dimension=recipe.train.dimension, seed=recipe.train.seed)
    else:
        policy = models.load_model(recipe.model, adapter=adapter, trainable=True)
    if method.compares_with_any_reference:
        other = models.another_model(recipe.model, recipe.ref.path) if recipe.ref.kind == "model" else None
        further["ref_model"] = models.load_model(other) if other is not None else None
    ref = reference_identity(recipe, policy, further.get("ref_model"))
    if adapter is not None:
        _say_reference(Path(adapter), ref)
    trainer = method.trainer(
        model=policy,
        args=recipe.train,
        train_dataset=train,
        eval_dataset=eval_sets or None,
        processing_class=tokenizer,
        peft_config=recipe.lora,
        callbacks=[MetricsFile(Path(str(recipe.train.output_dir)))],
        **further,
    )
    trainer.reference_identity = ref
    left_out = len(train) - len(trainer.train_dataset)
    if left_out and method.model == "language":
        logger.warning(
            "%d of %d training rows are left out: their prompt alone fills max_length=%s",
            left_out, len(train), recipe.train.max_length,
        )  # fmt: skip
    return trainer, ref


def _say_reference(adapter: Path, ref: dict[str, Any]) -> None:
    """Training that goes on from an adapter takes it, as it is now, for its reference; say so."""
    logger.warning(
        "training goes on from the adapter %s (%s); the reference is that adapter as it is now, not what it was trained "
        "against", adapter, ref["adapter_digest"][:12],
    )  # fmt: skip


def reference_identity(recipe: Recipe, policy: Any, ref_model: Any) -> dict[str, Any]:
    """What the reference is, with a digest of the weights that determine it."""
    model = policy if ref_model is None else ref_model
    identity: dict[str, Any] = {
        "kind": recipe.ref.kind,
        "model": recipe.ref.path if recipe.ref.kind == "model" else recipe.model.model_name_or_path,
        "digest": models.weights_digest(model),
    }
    if recipe.ref.kind == "adapter":
        identity |= {"adapter": recipe.ref.path, "adapter_digest": models.weights_digest(policy, only="lora_")}
    return identity


def _same_reference(path: Path, ref: dict[str, Any], checkpoint: Path) -> None:
    known = [check(checkpoint)["reference"]]
    if (path / ENV_FILE).is_file():
        known.append(recorded_reference(read_json(path / ENV_FILE).get("ref"), path / ENV_FILE))
    for recorded in known:
        if recorded is not None and not same_reference(recorded, ref):
            raise RunError(
                f"{path}: the run started with another reference ({recorded['kind']} {recorded['model']}, "
                f"{recorded['digest'][:12]}) than the recipe now gives ({ref['kind']} {ref['model']}, {ref['digest'][:12]}); "
                "restore it, or start a new run in another train.output_dir"
            )


def same_reference(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two identities have the same kind and weights; names may differ."""
    return all(one.get(key) == other.get(key) for key in ("kind", "digest", "adapter_digest"))


def _save(trainer: Any, recipe: Recipe, path: Path) -> None:
    is_adapter = isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel)
    target = path / ("adapter" if is_adapter else "model")
    trainer.save_model(str(target))
    if trainer.is_world_process_zero():
        write_text(target / REFERENCE_FILE, json.dumps(trainer.reference_identity, indent=1) + "\n")
        shutil.rmtree(target / "ref", ignore_errors=True)  # the frozen reference is not part of the result
        trainer.create_model_card(
            model_name=path.name, dataset_name=printable(recipe.data.train.path.replace("`", "'"), 200)
        )
        card = path / "README.md"
        write_text(card, card.read_text(encoding="utf-8") + _card_sections(trainer, recipe))


def _card_sections(trainer: Any, recipe: Recipe) -> str:
    method = METHODS[recipe.method]
    last = {k: v for record in trainer.state.log_history for k, v in record.items() if isinstance(v, int | float)}
    shown = ("train_loss", "rewards/accuracies", "rewards/margins", "log_ratio/chosen", "log_ratio/rejected")
    results = [
        f"| {k} | {v:.4g} |" for k, v in last.items() if k in shown or (k.startswith("eval_") and "rewards/" in k)
    ]
    sets = "".join(
        f"- evaluation {_code(name)}: {_code(source.path)} ({_code(source.split)})\n"
        for name, source in recipe.data.eval.items()
    )
    settings = recipe.resolved_yaml()
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", settings)), default=0))
    source = f", [arXiv:{method.arxiv}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else ""
    return (
        f"\n## Method\n\n{method.title}{source}, with alignkit.\n"
        f"\n## Data\n\n- training: {_code(recipe.data.train.path)} ({_code(recipe.data.train.split)})\n{sets}"
        f"\n## Results\n\nLast logged values; `alignkit eval` writes a full report.\n\n| metric | value |\n|---|---|\n"
        + "\n".join(results)
        + f"\n\n## Recipe\n\n{fence}yaml\n{settings}{fence}\n"
    )


def _code(text: str) -> str:
    """A code span that text of strangers cannot end."""
    return f"`{printable(text, 200).replace('`', chr(39))}`"


def arguments() -> argparse.ArgumentParser:
    """The command line of `python -m align.train`; `alignkit train` adds the launcher's."""
    parser = argparse.ArgumentParser(prog="align.train", description="Train from a recipe.", allow_abbrev=False)
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values are read as YAML")
    parser.add_argument(
        "--resume", metavar="auto|CHECKPOINT", help="continue from the last complete checkpoint, or this one"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete the run that is in train.output_dir")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's rewards run this"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; problems with what the user gave are told without a traceback, with exit code 2."""
    quiet_upstream()
    any_terminal()
    options = arguments().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        finished = run(
            options.recipe, options.overrides, resume=options.resume, overwrite=options.overwrite, allow=options.allow
        )
    except Exception as error:
        told = in_words(error)
        if told is None:
            raise
        print(told, file=sys.stderr)  # noqa: T201 - the command line's own message
        return 2
    if finished.trainer.is_world_process_zero():
        print(f"run: {finished.path}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
