"""Trains from a recipe: `accelerate launch -m align.train RECIPE [section.key=value ...] [--resume auto]`."""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from transformers import TrainerState, set_seed

from align.check.machine import Machine
from align.check.refusals import refuse, refuse_several
from align.errors import ANOTHER_ENDED, INTERRUPTED, as_a_command, in_words
from align.models.dated import DAY, recorded_day
from align.models.start import adapter_folder
from align.recipe.loading import Recipe, load_recipe
from align.rounds.run import run_rounds
from align.runs.agreement import on_main, there_everywhere
from align.runs.checkpoints import check, refuse_without_optimizer, step_of_foreign
from align.runs.contents import COMPLETIONS, ENV_FILE, RECIPE_FILE, ROUNDS_FILE, delete_run, result_of, written_by_run
from align.runs.directory import claimed, environment
from align.runs.identity import Identity, settings_of
from align.sampling.vllm_engine import VLLM
from align.trainers.shared.safe_runs import StopOnSignal
from align.trainers.shared.trl_contract import load_weights

from .building import build_trainer
from .data import load_data
from .data.kept import data_digest
from .data.loading import named_sets
from .errors import RunError
from .files import write_text
from .going_on import Start, find_start, is_finished, settled
from .launching import end_with_launcher
from .own_code import allow_file_argument, keep_copies
from .results import ended, save_result
from .run_identity import WRITTEN, identity_now, recipe_as_written

logger = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds; a process takes some to end, and a launcher to see that it has
SETTINGS_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError, NotImplementedError,
)  # fmt: skip


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
    changed: bool = False,
    unsealed: bool = False,
    allow: Collection[str] = (),
    vllm: str | None = None,
) -> Run:
    """Train a recipe and write its run directory.

    Args:
        recipe: A loaded recipe, a path, or the name of a shipped one.
        overrides: `section.key=value` strings, for a path or a name.
        resume: "auto" for the last complete checkpoint in the run directory (or from the start, if nothing was saved yet),
            or a checkpoint folder. A finished run is left as it is.
        overwrite: Delete the run that is in the run directory, once recipe, data, model and trainer are known to work.
        changed: Go on although something is not as it was that determines the numbers; `env.json` then says what.
        unsealed: Begin from the checkpoint that `resume` names although it has no manifest, as TRL's own trainers write them:
            nothing tells whether it is whole, or what it was trained with.
        allow: Reward functions of the form MODULE:FUNCTION that may run; see `align.rewards.load_reward`.
        vllm: The interpreter of an environment whose vLLM samples the answers of rounds.

    Raises:
        RecipeError: If the recipe cannot be run as written.
        DataError: If the data cannot be used.
        RunError: If the run directory is taken, holds other files, or is being written by another process, the run is not
            what it was, or a checkpoint cannot be written.
        SystemExit: With 143 or 130, after a checkpoint, if the process got SIGTERM or SIGINT.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    path = Path(str(recipe.train.output_dir))
    if changed and resume is None:
        raise RunError(
            "--changed: says that --resume may go on with other settings; name what to resume, such as --resume auto"
        )
    if unsealed and resume in (None, "auto"):
        raise RunError("--unsealed: goes on from a checkpoint of another trainer; name it with --resume CHECKPOINT")
    if recipe.rounds is not None and (changed or resume not in (None, "auto")):
        raise RunError(
            "rounds go on where they stopped with --resume auto, as they were: name no checkpoint, and no --changed"
        )
    if vllm is not None and recipe.rounds is None:
        raise RunError("--vllm: samples the answers of rounds, and the recipe has none; leave it out")
    if recipe.fronts is not None:
        raise RunError(
            f"fronts: several policies are trained by `alignkit front {recipe.path}`; or leave the section out"
        )
    ledger = None if recipe.rounds is None else ROUNDS_FILE
    with claimed(path, resume=resume is not None, overwrite=overwrite, ledger=ledger):
        _check_not_inside(recipe, path, overwrite=overwrite)
        if recipe.rounds is not None:
            sets = refuse_several(recipe, resume=resume is not None, allow=allow)
            last = run_rounds(
                recipe, run, resume=resume is not None, overwrite=overwrite, sets=sets, allow=allow,
                vllm=None if vllm is None else VLLM.at(vllm),
            )  # fmt: skip
            return Run(path, None, {}) if last is None else last._replace(path=path)
        start = on_main(lambda: find_start(path, resume, unsealed=unsealed))
        return _run(recipe, path, start, allow, overwrite=overwrite, changed=changed)


def _run(
    recipe: Recipe, path: Path, start: Start, allow: Collection[str], *, overwrite: bool = False, changed: bool = False
) -> Run:
    # what is there to go on with, and is it what the recipe says? first without weights
    checkpoint, settings = start.checkpoint, settings_of(recipe)
    if checkpoint is not None:
        there_everywhere(checkpoint, step_of_foreign if start.unsealed else lambda folder: check(folder)["step"])
    set_seed(recipe.train.seed)
    with PartialState().local_main_process_first():
        data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    sets = {"train": data.train, **data.eval}
    digests = on_main(lambda: {name: data_digest(dataset) for name, dataset in sets.items()})
    digests["train"] |= {"sources": data.shares} if data.shares else {}
    on_main(lambda: settled(start, Identity(settings=settings, data=digests["train"]), changed=changed))
    refuse(recipe, named_sets(data.train, data.eval), Machine.here(), allow=allow, checkpoint=checkpoint)
    day = recorded_day(path / ENV_FILE) if start.known is not None else None
    try:
        trainer, ref = build_trainer(recipe, data.train, data.eval, allow=allow, day=day)
    except SETTINGS_ERRORS as error:  # what the libraries behind the trainer make of settings that nobody has foreseen
        if in_words(error) is not None:
            raise
        raise RunError(f"training cannot be set up: {type(error).__name__}: {error}") from error
    now = identity_now(settings, trainer, digests["train"], trainer.starting_weights)
    identity, changes = on_main(lambda: settled(start, now, changed=changed))
    trainer.identity = identity
    if is_finished(start, now):
        return _finished(trainer, path, start)
    if checkpoint is not None and not start.unsealed:
        refuse_without_optimizer(checkpoint)
    # from here on the directory is changed
    if start.known is not None and identity.run is None:
        logger.warning("%s: which run this is, is not known: an earlier version wrote it", path)
    if checkpoint is not None:
        logger.warning("resuming from %s", checkpoint)
    for change in (line for entry in changes if entry["step"] == start.step for line in entry["changes"]):
        logger.warning("from step %d on: %s", start.step, change)
    if trainer.is_world_process_zero():
        if start.known is None:  # what is there is to be replaced, or is nothing that one could go on with
            delete_run(path)
        if getattr(trainer, "log_completions", False):  # TRL made the folder when the trainer was
            (path / COMPLETIONS).mkdir(parents=True, exist_ok=True)
        record = environment(
            ref=ref,
            data=digests,
            device=str(trainer.accelerator.device),
            processes=trainer.accelerator.num_processes,
        )
        record |= {"run": identity.run, "identity": identity.as_json(), "changes": changes}
        record[WRITTEN] = recipe_as_written(recipe)
        if trainer.begun_with is not None:
            record["start"] = trainer.begun_with
        if checkpoint is not None and start.of_directory is None:
            record["began_from"] = str(checkpoint)
        elif "began_from" in start.env and start.known is not None:
            record["began_from"] = start.env["began_from"]
        if trainer.template_day is not None:
            record[DAY] = trainer.template_day
        write_text(path / ENV_FILE, json.dumps(record, indent=2) + "\n")
        keep_copies(path)
        write_text(path / RECIPE_FILE, _noted(changes) + recipe.resolved_yaml())
    trainer.accelerator.wait_for_everyone()
    with StopOnSignal() as stop:
        trainer.add_callback(stop)
        result = trainer.train(str(checkpoint) if checkpoint else None, unsealed=start.unsealed)
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        name = signal.Signals(stop.asked).name
        logger.warning(
            "stopped by %s after step %d, which is saved; go on with --resume auto", name, trainer.state.global_step
        )
        raise SystemExit(128 + stop.asked)
    save_result(trainer, recipe, path)
    return Run(path, trainer, result.metrics)


def _finished(trainer: Any, path: Path, start: Start) -> Run:
    """A run with nothing left to do, its weights in the trainer; nothing is written."""
    step = start.result["step"] if start.result else None
    logger.warning("%s: finished%s, nothing to do", path, "" if step is None else f" at step {step}")
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):  # these load weights when training begins
        load_weights(trainer, result_of(path))
    if start.checkpoint is not None:
        trainer.state = TrainerState.load_from_json(str(start.checkpoint / "trainer_state.json"))
    return Run(path, trainer, {})


def _noted(changes: Sequence[dict[str, Any]]) -> str:
    """Comments for the head of a recipe that does not replay its run from the start."""
    lines = [f"# from step {entry['step']} on: {change}\n" for entry in changes for change in entry["changes"]]
    return "# Changed on the way, so that this file does not replay the run from its start:\n" * bool(lines) + "".join(
        lines
    )


def _check_not_inside(recipe: Recipe, path: Path, *, overwrite: bool) -> None:
    """Refuse to overwrite a run that the recipe reads something from."""
    if not overwrite:
        return
    read = {"model.model_name_or_path": recipe.model.model_name_or_path, "ref.path": recipe.ref.path}
    read |= {} if recipe.start is None else {"start.adapter": adapter_folder(recipe.start.adapter)}
    read |= {f"data.eval.{name}.path": source.path for name, source in recipe.data.eval.items()}
    own = recipe.data.train_sources()
    read |= {f"data.train{f'[{k}]' if len(own) > 1 else ''}.path": source.path for k, source in enumerate(own)}
    for key, value in read.items():
        source = Path(str(value)).resolve()
        if value and any(source.is_relative_to(own.resolve()) for own in written_by_run(path)):
            raise RunError(
                f"{key}: {value} is part of the run in {path}, which --overwrite would delete; choose another train.output_dir"
            )


def arguments() -> argparse.ArgumentParser:
    """The command line of `python -m align.train`; `alignkit train` adds the launcher's."""
    parser = argparse.ArgumentParser(prog="align.train", description="Train from a recipe.", allow_abbrev=False)
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values are read as YAML")
    parser.add_argument(
        "--resume", metavar="auto|CHECKPOINT", help="continue from the last complete checkpoint, or this one"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in train.output_dir")
    parser.add_argument(
        "--changed", action="store_true", help="resume although settings, data or weights are not what they were"
    )
    parser.add_argument(
        "--unsealed", action="store_true", help="resume a checkpoint of TRL's own trainers, which tells less of itself"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's rewards run this"
    )
    parser.add_argument(
        "--vllm", metavar="PYTHON", help="let the vLLM of this interpreter sample the answers of rounds"
    )
    allow_file_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; problems with what the user gave are told without a traceback, with exit code 2."""
    as_a_command()
    end_with_launcher()
    main_process = int(os.environ.get("RANK") or 0) == 0
    # what there is to say of recipe, data and run, every process finds; one says it
    logging.basicConfig(level=logging.WARNING if main_process else logging.ERROR, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options = arguments().parse_intermixed_args(argv)
        recipe = load_recipe(options.recipe, options.overrides)
        finished = run(
            recipe,
            resume=options.resume,
            overwrite=options.overwrite,
            changed=options.changed,
            unsealed=options.unsealed,
            allow=options.allow,
            vllm=options.vllm,
        )
    except Exception as error:
        told = in_words(error)
        if not main_process or told == ANOTHER_ENDED:  # who began says it, and the launcher ends the others
            time.sleep(PATIENCE)
        if told is None:
            raise
        print(told, file=sys.stderr, flush=True)  # noqa: T201 - the command line's own message
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT; go on with --resume auto, or begin again if nothing was saved yet", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    if (state := PartialState()).is_main_process:
        print(ended(finished.path, recipe))  # noqa: T201
    state.wait_for_everyone()
    state.destroy_process_group()  # its threads otherwise abort, now and then, a process that ends before them
    return 0


if __name__ == "__main__":
    sys.exit(main())
