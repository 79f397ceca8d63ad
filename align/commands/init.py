"""Writes a recipe for somebody's model and data, asking for what was not said, and checks it."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from trl import ModelConfig

from align.commands.check import main as check
from align.data.loading import TRAIN, DataConfig, DataSource, load_source
from align.data.rows.layouts import Prefer
from align.data.rows.normalise import ROW, Rows
from align.errors import DataError, RunError
from align.files import check_writable, write_text
from align.methods import METHODS
from align.models.loading import load_tokenizer
from align.strict.fields import nearest
from align.strict.yaml_tree import as_scalar

ADVICE = re.compile(r"`((?:layout|columns|prefer|ignore|method): [^`]*)`")
MACHINES = {
    "cpu": {"dtype": "float32", "batch": 2, "accumulate": 4, "max_length": 512, "checkpointing": False},
    "gpu": {"dtype": "bfloat16", "batch": 4, "accumulate": 4, "max_length": 1024, "checkpointing": None},
}
LEARNING_RATE = {"pairs": "1.0e-5", "completions": "1.0e-4", "labels": "1.0e-5"}
QUESTIONS = {
    "model": ("a hub id, a folder or a .gguf file", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "data": ("rows to learn from: a file, a folder or a hub id", None),
    "method": ("what to train; `alignkit methods` lists all", None),
    "machine": ("cpu or gpu", None),
}
FEW = 20  # prompts, of which none are kept apart


class Source(NamedTuple):
    """What was found about the data: how they are read, as what, and what the rows hold."""

    settings: dict[str, Any]
    rows: Rows
    prompts: int
    is_text: bool


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="alignkit init", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("out", nargs="?", type=Path, default=Path("recipe.yaml"), help="default: recipe.yaml")
    for name, (about, _) in QUESTIONS.items():
        parser.add_argument(f"--{name}", help=about, choices=tuple(MACHINES) if name == "machine" else None)
    parser.add_argument("--split", default="train", help="of the data; default: train")
    parser.add_argument("--start", metavar="RUN", help="a run or an adapter that training begins with")
    parser.add_argument(
        "--source", action="append", default=[], metavar="LINE", help="a line of the source, such as 'layout: kto'"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Write a commented recipe for a model and data, and check it; asks for what is not said, in a terminal."""
    options = arguments().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    out: Path = options.out
    if out.exists() or out.is_symlink():
        raise RunError(f"{out}: is there already; name another file, or remove it")
    if not out.parent.is_dir():
        raise RunError(f"{out.parent}: no such folder; make it first")
    check_writable(out)
    model = options.model or _asked("model")
    data = options.data or _asked("data")
    known = _known(options.method)
    source = read_as_it_is(data, options.split, options.source, METHODS[known].rows if known else None)
    name = known or _known(_asked("method", {"pairs": "dpo", "completions": "sft", "labels": "kto"}[source.rows]))
    if METHODS[name].rows != source.rows:
        raise RunError(f"--method: {name} learns from {METHODS[name].rows}, and {data} holds {source.rows}")
    machine = options.machine or _asked("machine", "gpu" if torch.cuda.is_available() else "cpu")
    if machine not in MACHINES:
        raise RunError(f"--machine: must be one of {', '.join(MACHINES)}, got {machine!r}")
    write_text(out, written(out, model, data, options.split, name, machine, options.start, source))
    print(f"{out}: written; what `alignkit check {out}` says:\n")
    code = check([str(out)])
    if code == 0:
        print(f"\nnext: alignkit train {out}")
    return code


def read_as_it_is(data: str, split: str, lines: Sequence[str], wanted: Rows | None) -> Source:
    """Read rows as messages of the reader advise, as long as they leave no choice.

    Raises:
        DataError: If they cannot be read, or can be read in several ways.
    """
    settings: dict[str, Any] = {}
    for line in lines:
        settings |= _line(line)
    rows: Rows = wanted or "pairs"
    while True:
        made = {**settings, "prefer": Prefer(**settings["prefer"])} if "prefer" in settings else settings
        source = DataSource(data, split=split, **made)
        try:
            read = load_source(source, TRAIN, DataConfig(source), keep=(ROW,), texts=(), rows=rows, told=[])
        except DataError as error:
            advised = list(dict.fromkeys(ADVICE.findall(str(error))))
            further = _line(advised[0]) if len(advised) == 1 and "..." not in advised[0] else {}
            method = further.pop("method", None)
            if method is not None and wanted is None:
                rows = METHODS[method].rows
            elif not further or further.items() <= settings.items():
                hint = "; say which with --source 'LINE'" if advised else ""
                raise DataError(f"{error}{hint}") from None
            settings |= further
            continue
        return Source(settings, rows, len(set(map(str, read["prompt"]))), isinstance(read[0]["prompt"], str))


def written(
    out: Path, model: str, data: str, split: str, method: str, machine: str, start: str | None, source: Source
) -> str:
    """The recipe's text."""
    how, lines = MACHINES[machine], []
    on_cpu, compared = machine == "cpu", source.rows in ("pairs", "labels")
    entry = METHODS[method]
    cut = {"path": _beside(data, out), **({"split": split} if split != "train" else {}), **source.settings}
    held = min(64, source.prompts // 10) if source.prompts >= FEW else 0
    lines += [
        f"# {entry.title}, written by `alignkit init`. `alignkit explain KEY` tells what a key means.",
        f"method: {method}",
        f"model: {{model_name_or_path: {_yaml(_beside(model, out))}, dtype: {how['dtype']}}}",
    ]
    if start is not None:
        lines.append(f"start: {{adapter: {_yaml(_beside(start, out))}}}   # training goes on from it")
    else:
        lines.append(
            "lora: {r: 16, lora_alpha: 32, target_modules: all-linear}   # all layers, at 1 to 2% of the weights"
        )
    lines += ["data:", f"  train: {_yaml(cut)}"]
    if held:
        lines.append(f"  holdout: {held}          # prompts kept apart, for evaluation")
    if source.is_text and _has_template(model):
        lines.append("  as_messages: true     # the rows are text, and this is a chat model")
    lines += [
        "train:",
        f"  output_dir: runs/{out.stem}",
        f"  learning_rate: {LEARNING_RATE[source.rows]}   # LoRA needs about ten times what full fine-tuning does",
        "  lr_scheduler_type: cosine",
        "  warmup_steps: 0.1         # share of all steps",
        "  num_train_epochs: 1",
        f"  per_device_train_batch_size: {how['batch']}",
        f"  gradient_accumulation_steps: {how['accumulate']}   # rows of a step: batch size times this",
        f"  max_length: {how['max_length']}           # tokens; what is longer is cut, and `alignkit check` says how much",
    ]
    settable = {each.name for each in fields(entry.config)} - set(entry.preset)
    if compared and entry.model == "language" and "beta" in settable:
        lines.append("  # beta: 0.1               # how far the policy may go from the reference: smaller is farther")
    if how["checkpointing"] is False:
        lines.append("  gradient_checkpointing: false   # memory is plenty, time is not")
    lines += ["  use_cpu: true", "  bf16: false"] if on_cpu else []
    lines += [
        "  logging_steps: 5",
        "  save_steps: 0.2           # five times in a run",
        "  report_to: none           # or tensorboard, trackio, wandb, mlflow; metrics.jsonl is written anyway",
        "  seed: 0",
    ]
    if held and entry.model == "language":
        lines += [
            "eval:                       # what `alignkit eval` does with the run",
            f"  generate: {{prompts: {min(held, 32)}, max_new_tokens: 64}}",
        ]
    return "\n".join(lines) + "\n"


def _asked(name: str, default: str | None = None) -> str:
    """What somebody at a terminal says; elsewhere the default that was found, if there is one."""
    about, usual = QUESTIONS[name]
    if not sys.stdin.isatty():
        if default is None:
            raise RunError(f"--{name}: missing; {about}")
        return default
    default = default or usual
    while True:
        said = input(f"{name} ({about}){f' [{default}]' if default else ''}: ").strip() or default
        if said:
            return said


def _known(method: str | None) -> Any:
    if method is None:
        return None
    if method not in METHODS:
        raise RunError(f"--method: unknown, got {method!r}; {nearest(method, METHODS)}")
    if METHODS[method].rows == "prompts":
        raise RunError(f"--method: {method} needs rewards or a judge; begin with `alignkit recipes online/...`")
    return method


def _line(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise RunError(f"--source: expected a line of YAML such as 'layout: kto', got {text!r}")
    return found


def _beside(name: str, out: Path) -> str:
    """A path of this machine, relative to the recipe; a name on a hub as it is."""
    if not Path(name).exists() or Path(name).is_absolute():
        return name
    path = os.path.relpath(Path(name).absolute(), out.parent.absolute())
    return path if path.startswith("..") else f"./{path}"


def _has_template(model: str) -> bool:
    try:
        return load_tokenizer(ModelConfig(model_name_or_path=model)).chat_template is not None
    except (OSError, RunError):  # `check` tells
        return False


def _yaml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        return as_scalar(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False).strip()
