"""Writes what a run ends with: its adapter or model, whole or not at all, and the model card."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from align.data import DataSource
from align.recipe.loading import Recipe
from align.runs.checkpoints import seal
from align.runs.contents import REFERENCE_FILE, RESULTS, WRITING, exchange, result_of

from .errors import RunError
from .files import called, write_text
from .findings import printable
from .methods import METHODS
from .own_code import FOLDER

WEIGHTS = (".safetensors", "config.json")


def save_result(trainer: Any, recipe: Recipe, path: Path) -> None:
    """Write `adapter/` or `model/` with its manifest under another name, then exchange it, and write the model card.

    Raises:
        RunError: If it cannot be written (a full disk, say). What was there before stays.
    """
    is_adapter = isinstance(trainer.accelerator.unwrap_model(trainer.model), PeftModel)
    name = "adapter" if is_adapter else "model"
    target, scratch, failure = path / name, path / f"{WRITING}{name}", None
    try:
        trainer.save_model(str(scratch))
    except Exception as error:  # torch, safetensors and Python each have their own for a full disk
        failure = error
    failed = trainer.anywhere(failure is not None)
    if trainer.is_world_process_zero():
        try:
            if not failed:
                _finish(trainer, scratch, target)
                _write_card(trainer, recipe, path)
        except OSError as error:
            failure = error
        if failed or failure is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    if trainer.anywhere(failure is not None):
        reason = str(failure).partition("\n")[0] if failure is not None else "another process could not write"
        raise RunError(
            f"{target} could not be written: {reason}; the checkpoints are as they were: make room or mend the folder, and "
            "go on with --resume auto"
        ) from failure


def ended(path: Path, recipe: Recipe) -> str:
    """Where a run is, and the commands that go on from it, the path as it was given; none that would be refused."""
    run = shlex.quote(str(path))
    own = "".join(f" --allow-file {shlex.quote(str(file))}" for file in sorted((path / FOLDER).glob("*.py")))
    commands = {}
    if METHODS[recipe.method].model != "language":
        weights = result_of(path) or path / RESULTS[0]
        judge = shlex.quote(f"mine={{kind: preference_model, path: {json.dumps(str(weights), ensure_ascii=False)}}}")
        commands[f"alignkit judge-agreement FILE --by {judge}{own}"] = "hold it against what people preferred"
    else:
        if (recipe.data.eval or recipe.data.holdout) and (recipe.rows != "prompts" or recipe.eval.generate is not None):
            commands[f"alignkit eval {run}{own}"] = "measure it against its reference"
        if not (recipe.tools or recipe.environments):  # nobody answers calls in a chat
            commands[f"alignkit chat {run}{own}"] = "talk to it"
        commands |= {
            f"alignkit sample {run} --prompts FILE --out answers.jsonl{own}": "have it answer the prompts of a file",
            f"alignkit export {run} OUT{own}": "write one model that transformers and vLLM load",
        }
    width = max(map(len, commands))
    return "\n".join([f"run: {run}", *(f"  {command:{width}}  # {what}" for command, what in commands.items())])


def _finish(trainer: Any, scratch: Path, target: Path) -> None:
    write_text(scratch / REFERENCE_FILE, json.dumps(trainer.reference_identity, indent=1) + "\n")
    shutil.rmtree(scratch / "ref", ignore_errors=True)  # the frozen reference is not part of the result
    early = trainer.early_stop is not None and trainer.early_stop.is_over
    seal(
        scratch,
        step=trainer.state.global_step,
        ends_at=trainer.state.global_step if early else trainer.state.max_steps,
        processes=trainer.accelerator.num_processes,
        identity=trainer.identity,
        only=WEIGHTS,
    )
    exchange(scratch, target)


def _write_card(trainer: Any, recipe: Recipe, path: Path) -> None:
    own = recipe.data.train_sources()
    name = printable(own[0].path.replace("`", "'"), 200) if len(own) == 1 else None  # TRL's card links to one
    trainer.create_model_card(model_name=called(path), dataset_name=name)
    card = path / "README.md"
    write_text(card, card.read_text(encoding="utf-8") + _card_sections(trainer, recipe))


def _without_folders(value: Any) -> Any:
    """A value of a recipe in which absolute paths of this machine are their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _card_sections(trainer: Any, recipe: Recipe) -> str:
    method = METHODS[recipe.method]
    last = {k: v for record in trainer.state.log_history for k, v in record.items() if isinstance(v, int | float)}
    shown = ("train_loss", "rewards/accuracies", "rewards/margins", "log_ratio/chosen", "log_ratio/rejected")
    results = [
        f"| {k} | {v:.4g} |" for k, v in last.items() if k in shown or (k.startswith("eval_") and "rewards/" in k)
    ]
    sets = "".join(f"- evaluation {_code(name)}: {_source(source)}\n" for name, source in recipe.data.eval.items())
    trained_on = ", ".join(_source(source) for source in recipe.data.train_sources())
    settings = replace(recipe, raw=_without_folders(recipe.raw)).resolved_yaml()
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", settings)), default=0))
    source = f", [arXiv:{method.arxiv}](https://arxiv.org/abs/{method.arxiv})" if method.arxiv else ""
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    kept = f" The weights are those of step {best}, best by `{trainer.args.metric_for_best_model}`." if best else ""
    began = f" Training began with {_code(Path(recipe.start.adapter).name)}." if recipe.start is not None else ""
    return (
        f"\n## Method\n\n{method.title}{source}, with alignkit.{began}{kept}\n"
        f"\n## Data\n\n- training: {trained_on}\n{sets}"
        f"\n## Results\n\nLast logged values; `alignkit eval` writes a full report.\n\n| metric | value |\n|---|---|\n"
        + "\n".join(results)
        + f"\n\n## Recipe\n\n{fence}yaml\n{settings}{fence}\n"
    )


def _source(source: DataSource) -> str:
    return f"{_code(_without_folders(source.path))} ({_code(source.split)})"


def _code(text: str) -> str:
    """A code span that text of strangers cannot end."""
    return f"`{printable(text, 200).replace('`', chr(39))}`"
